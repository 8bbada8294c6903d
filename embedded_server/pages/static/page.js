"use strict";

// Everything that comes from outside (labels, file names, errors) is shown by textContent only.
const byId = (id) => document.getElementById(id);
const KEY_ITEM = "deskside-key";
const CLOSE_CALL = 0.7;
const MOST_ROWS = 500;

let models = [];
let waitingFile = null;
let lastAnswer = null;
let pictureUrl = null;
let newest = 0;

function takeKeyFromFragment() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!key) return;
  sessionStorage.setItem(KEY_ITEM, key);
  // The key must not stay in the address bar or in the history.
  history.replaceState(null, "", location.pathname + location.search);
}

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY_ITEM);
  const headers = new Headers(options.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Refusal(0, "The server cannot be reached. It may have been switched off.");
  }
  let body = null;
  try {
    body = await response.json();
  } catch {
    throw new Refusal(response.status, "The server gave an answer this page cannot read.");
  }
  if (!response.ok) throw new Refusal(response.status, body?.error?.message ?? "The server turned the request away.");
  return body;
}

function showError(error) {
  byId("status").textContent = "";
  const box = byId("error");
  if (error.status === 401) {
    const hadKey = sessionStorage.getItem(KEY_ITEM) !== null;
    sessionStorage.removeItem(KEY_ITEM);
    byId("forget").hidden = true;
    byId("key-form").hidden = false;
    box.hidden = !hadKey;
    box.textContent = hadKey ? "The server does not know this key." : "";
    byId("key").focus();
    return;
  }
  box.textContent = error.message;
  box.hidden = false;
}

function clearError() {
  byId("error").hidden = true;
  byId("error").textContent = "";
}

// Never 100.0 % for what is less than certain, nor 0.0 % for what is possible: the same words as in the window.
const percent = (score) => {
  const value = 100 * score;
  if (value >= 99.95 && value < 100) return "> 99.9 %";
  if (value > 0 && value < 0.05) return "< 0.1 %";
  return `${value.toFixed(1)} %`;
};
const isScored = (p) => typeof p === "object" && p !== null && typeof p.label === "string" && typeof p.score === "number";

function element(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function showBars(predictions) {
  const [best] = predictions;
  byId("best").hidden = false;
  byId("best").classList.toggle("is-close", best.score < CLOSE_CALL);
  byId("best-label").textContent = best.label;
  byId("best-score").textContent = percent(best.score);
  for (const { label, score } of predictions) {
    const item = element("li");
    const line = element("div", undefined, "line");
    line.append(element("span", label), element("span", percent(score), "number"));
    const bar = element("progress");
    bar.max = 1;
    bar.value = score;
    bar.setAttribute("aria-hidden", "true");
    item.append(line, bar);
    byId("bars").append(item);
  }
}

function rowCells({ input, predictions, error }) {
  const number = String(typeof input === "number" ? input + 1 : input);
  if (error) return [element("td", number), element("td", error.message ?? "failed", "failed"), element("td", "")];
  const [first] = predictions ?? [];
  if (isScored(first)) return [element("td", number), element("td", first.label), element("td", percent(first.score))];
  const value = first !== undefined && "value" in Object(first) ? first.value : predictions;
  return [element("td", number), element("td", typeof value === "object" ? JSON.stringify(value) : String(value)), element("td", "")];
}

function showTable(results) {
  for (const title of ["Row", "Answer", "Score"]) {
    const head = element("th", title);
    head.scope = "col";
    byId("table-head").append(head);
  }
  for (const result of results.slice(0, MOST_ROWS)) {
    const row = element("tr");
    row.append(...rowCells(result));
    byId("table-body").append(row);
  }
  byId("table-wrap").hidden = false;
  const failed = results.filter((result) => result.error).length;
  const cut = results.length > MOST_ROWS ? `, the first ${MOST_ROWS} shown` : "";
  byId("status").textContent = `${results.length} rows answered${failed ? `, ${failed} of them failed` : ""}${cut}.`;
}

function showRaw(answer) {
  byId("raw-text").textContent = JSON.stringify(answer, null, 2).slice(0, 100000);
  byId("raw").hidden = false;
  byId("raw").open = true;
}

function clearAnswer() {
  for (const id of ["bars", "table-head", "table-body"]) byId(id).replaceChildren();
  for (const id of ["answer", "best", "table-wrap", "raw", "copy"]) byId(id).hidden = true;
  byId("timing").textContent = "";
  lastAnswer = null;
}

function showAnswer(answer) {
  clearAnswer();
  lastAnswer = answer;
  byId("answer").hidden = false;
  byId("copy").hidden = false;
  byId("status").textContent = "";
  if (Array.isArray(answer.results)) showTable(answer.results);
  else if (Array.isArray(answer.predictions) && answer.predictions.length && answer.predictions.every(isScored)) {
    showBars(answer.predictions);
    byId("status").textContent = `Answer: ${answer.predictions[0].label}, ${percent(answer.predictions[0].score)}.`;
  } else showRaw(answer.predictions ?? answer.outputs);
  byId("timing").textContent = `answered in ${Math.round(answer.timing_ms.total)} ms`;
}

function showFile(file) {
  byId("file-name").textContent = file.name;
  byId("empty").hidden = true;
  byId("drop").classList.remove("is-empty");
  if (pictureUrl) URL.revokeObjectURL(pictureUrl);
  pictureUrl = null;
  const picture = byId("picture");
  picture.hidden = true;
  if (!contentType(file).startsWith("image/")) return;
  pictureUrl = URL.createObjectURL(file);
  picture.onload = () => { picture.hidden = false; };
  picture.onerror = () => { picture.hidden = true; };  // a format this browser cannot show; the server may read it
  picture.alt = `Your picture ${file.name}`;
  picture.src = pictureUrl;
}

function contentType(file) {
  if (/\.csv$/i.test(file.name)) return "text/csv";
  return file.type || "application/octet-stream";
}

async function predict(file) {
  const model = byId("model").value;
  clearError();
  clearAnswer();
  showFile(file);
  waitingFile = file;
  if (!models.length) {
    showError(new Refusal(0, "No model is open on this server."));
    return;
  }
  const turn = ++newest;
  byId("status").textContent = "Working…";
  try {
    const answer = await ask(`/predict/${encodeURIComponent(model)}`, {
      method: "POST",
      body: file,
      headers: { "Content-Type": contentType(file) },
    });
    if (turn === newest) showAnswer(answer);
  } catch (error) {
    if (turn === newest) showError(error);
  }
}

const taskName = (task) => task.replace(/-/g, " ").replace(/^./, (first) => first.toUpperCase());

function showModel() {
  const chosen = models.find((model) => model.id === byId("model").value);
  byId("model-task").textContent = chosen ? `${taskName(chosen.task)} on ${location.hostname}` : "";
  const isTable = chosen?.task.startsWith("tabular");
  byId("drop-title").textContent = isTable ? "Show it a table" : "Show it a picture";
}

async function loadModels() {
  try {
    ({ models } = await ask("/models"));
  } catch (error) {
    showError(error);
    return;
  }
  byId("key-form").hidden = true;
  byId("forget").hidden = sessionStorage.getItem(KEY_ITEM) === null;
  const select = byId("model");
  const before = select.value;
  select.replaceChildren(...models.map(({ id }) => new Option(id, id)));
  if (models.some(({ id }) => id === before)) select.value = before;
  select.disabled = models.length === 0;
  if (!models.length) select.append(new Option("No model is open on this server"));
  byId("ready").textContent = models.length ? "Ready" : "Nothing to ask yet";
  showModel();
}

function firstFile(data) {
  return data?.files?.length ? data.files[0] : null;
}

function listen() {
  for (const id of ["camera", "choose"]) {
    byId(id).addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file) predict(file);
      event.target.value = "";
    });
  }
  byId("model").addEventListener("change", () => {
    showModel();
    if (waitingFile) predict(waitingFile);
  });
  byId("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY_ITEM, byId("key").value.trim());
    byId("key").value = "";
    clearError();
    await loadModels();
    if (models.length && waitingFile) predict(waitingFile);
  });
  byId("forget").addEventListener("click", () => {
    sessionStorage.removeItem(KEY_ITEM);
    byId("forget").hidden = true;
    byId("status").textContent = "The key is forgotten.";
  });
  byId("copy").addEventListener("click", async () => {
    const text = JSON.stringify(lastAnswer, null, 2);
    try {
      await navigator.clipboard.writeText(text);
      byId("status").textContent = "Copied.";
    } catch {
      // Browsers give no clipboard to plain HTTP pages: show the text to be copied by hand.
      showRaw(lastAnswer);
      getSelection().selectAllChildren(byId("raw-text"));
      byId("status").textContent = "Selected: copy it from here.";
    }
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop").classList.add("is-over");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) byId("drop").classList.remove("is-over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    byId("drop").classList.remove("is-over");
    const file = firstFile(event.dataTransfer);
    if (file) predict(file);
  });
  document.addEventListener("paste", (event) => {
    const file = firstFile(event.clipboardData);
    if (file) predict(file);
  });
}

takeKeyFromFragment();
byId("drop").classList.add("is-empty");
for (const node of document.querySelectorAll(".host")) node.textContent = location.hostname;
listen();
window.addEventListener("hashchange", () => { takeKeyFromFragment(); clearError(); loadModels(); });
loadModels();
