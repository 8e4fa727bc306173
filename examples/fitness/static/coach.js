// Each answer is JSON Lines: {kind: html | text | done | error, value}.
for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer(form, form.parentElement.querySelector(".answer"));
  });
}

async function answer(form, place) {
  const button = form.querySelector("button");
  const fields = Object.fromEntries(new FormData(form));
  if (fields.minutes) fields.minutes = Number(fields.minutes);
  place.replaceChildren();
  place.removeAttribute("data-state");
  button.disabled = true;
  const began = performance.now();
  try {
    const response = await fetch(form.dataset.to, { method: "POST", body: JSON.stringify(fields) });
    if (!response.ok) throw new Error((await response.json()).error);
    let ended = false;
    for await (const { kind, value } of lines(response.body)) {
      show(place, kind, value);
      ended = kind === "done" || kind === "error";
    }
    if (!ended) throw new Error("The connection broke before the end of the answer.");
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    place.append(element("p", "time", `${seconds} s`));
  } catch (error) {
    show(place, "error", error.message);
  } finally {
    button.disabled = false;
  }
}

function show(place, kind, value) {
  if (kind === "html") place.insertAdjacentHTML("beforeend", value);
  if (kind === "text") {
    const last = place.querySelector(".said") ?? place.appendChild(element("p", "said", ""));
    last.textContent += value;
  }
  if (kind === "error") place.append(element("p", "error", value));
  if (kind === "done" || kind === "error") place.dataset.state = kind;
}

function element(name, style, text) {
  const made = document.createElement(name);
  made.className = style;
  made.textContent = text;
  return made;
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}
