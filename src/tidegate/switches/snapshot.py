"""Every switch, read from PostgreSQL in one statement: so at one version, whatever is written."""

from __future__ import annotations

import msgspec
import psycopg

from tidegate.switches.values import SwitchSnapshot

VERSION_QUERY = "SELECT version FROM switches_version"
SNAPSHOT_QUERY = """
SELECT json_build_object(
  'version', v.version,
  'keys', (SELECT coalesce(json_agg(json_build_object(
      'id', id, 'name', name, 'tenant', tenant, 'hash', encode(hash, 'base64'),
      'expires_at', extract(epoch FROM expires_at)::float8, 'revoked', revoked_at IS NOT NULL,
      'priority', priority) ORDER BY created_at, id), '[]') FROM keys),
  'kills', (SELECT coalesce(json_agg(json_build_object(
      'kind', kind, 'name', name, 'tokens', tokens, 'reason', reason)
      ORDER BY kind, name), '[]') FROM kills),
  'caps', (SELECT coalesce(json_agg(json_build_object(
      'route', route, 'prompt_tokens', prompt_tokens, 'output_tokens', output_tokens,
      'surge', surge, 'reason', reason) ORDER BY route), '[]') FROM caps),
  'traffic', (SELECT coalesce(json_agg(json_build_object(
      'route', route, 'release', release, 'weight', weight)
      ORDER BY route, place), '[]') FROM traffic),
  'flags', (SELECT json_build_object('number', d.number, 'body', d.body, 'hash', d.hash)
      FROM flags_in_force f JOIN flag_documents d ON d.number = f.number),
  'secrets', (SELECT coalesce(json_agg(json_build_object(
      'secret', secret, 'fingerprint', fingerprint, 'state', state, 'share', share)
      ORDER BY secret, fingerprint), '[]') FROM secret_keys)
)::text FROM switches_version v
"""
_decoder = msgspec.json.Decoder(SwitchSnapshot)


def snapshot(connection: psycopg.Connection) -> SwitchSnapshot:
    """Every switch at one version, read in one statement."""
    return snapshot_of(connection.execute(SNAPSHOT_QUERY).fetchone())


def snapshot_of(row: tuple[str] | None) -> SwitchSnapshot:
    """The value of the row of ``SNAPSHOT_QUERY``."""
    return SwitchSnapshot(version=0) if row is None else _decoder.decode(row[0])
