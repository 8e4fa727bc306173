"""``hf:`` a file of a model hub repository at one commit.

URL pattern of the hub: ``{endpoint}/{owner}/{repo}/resolve/{commit}/{path}``. A branch or tag can
move, so only a full commit is a pin.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from tidegate.base import ArtifactError
from tidegate.registry.ports import Job, Obtained
from tidegate.registry.sources import https

_REF = re.compile(r"([\w.-]+)/([\w.-]+)@([0-9a-f]{40})")


def obtain(job: Job) -> Obtained:
    """Download ``member`` (a path inside the repository) as ``https:`` does."""
    return https.download(job, resolve_url(job.artifact.ref, job.artifact.member, job))


def resolve_url(ref: str, member: str | None, job: Job) -> str:
    """The address of the file. Error: bad_pin."""
    match = _REF.fullmatch(ref)
    if match is None:
        raise ArtifactError(
            "bad_pin",
            f"{ref!r} does not name a commit of a repository",
            cure="write hf: owner/repo@<40 hex digits of the commit>; branches and tags move",
        )
    if not member or ".." in member.split("/") or any(c in member for c in "*?["):
        raise ArtifactError(
            "bad_pin",
            f"hf: needs the path of one file in the repository, not {member!r}",
            cure="set member: to the path of the file, such as model-q4.gguf",
        )
    owner, repository, commit = match.groups()
    path = quote(member.lstrip("/"))
    return f"{job.settings.hf_endpoint}/{owner}/{repository}/resolve/{commit}/{path}"
