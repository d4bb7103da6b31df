// The page of a lorafit server. Texts, labels and names are only ever set as text, never as markup.
const at = (id) => document.getElementById(id);
const state = { models: [], key: "", history: [], rows: null };
const CHUNK = 64;

function make(tag, text, more = {}) {
  const one = document.createElement(tag);
  if (text !== undefined) one.textContent = text;
  for (const [name, value] of Object.entries(more)) one.setAttribute(name, value);
  return one;
}

async function call(path, body, signal) {
  const headers = { accept: "application/json" };
  if (state.key) headers.authorization = `Bearer ${state.key}`;
  if (body) headers["content-type"] = "application/json";
  for (let tries = 0; ; tries += 1) {
    const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
    if (answer.ok) return answer.json();
    const told = await answer.json().catch(() => ({}));
    if (answer.status === 429 && tries < 20) {
      await new Promise((go) => setTimeout(go, 1000 * Number(answer.headers.get("retry-after") || 1)));
      continue;
    }
    throw Object.assign(new Error(told.error || `The server answered ${answer.status}.`), { status: answer.status });
  }
}

function complain(error) {
  at("fault").hidden = !error;
  at("fault").textContent = error ? error.message || String(error) : "";
}

async function listModels() {
  complain(null);
  try {
    const told = await call("adapters");
    state.models = told.adapters;
    const names = [...told.adapters.map((one) => one.name), ...told.waiting];
    for (const id of ["model", "other"]) {
      const kept = at(id).value;
      at(id).replaceChildren(...(id === "other" ? [make("option", "none", { value: "" })] : []),
        ...names.map((name) => make("option", name, { value: name })));
      if (names.includes(kept)) at(id).value = kept;
    }
    at("state").textContent = `${told.adapters.length} open, ${told.waiting.length} waiting to be asked for`;
    describeModel();
  } catch (error) {
    at("state").textContent = "";
    complain(error);
    if (!state.key) document.querySelector("details").open = true;
  }
}

function describeModel() {
  const model = state.models.find((one) => one.name === at("model").value);
  at("pairs").hidden = at("second-label").hidden = !(model && model.pair);
  at("links").querySelectorAll(".report, .card").forEach((one) => one.remove());
  for (const kind of ["report", "card"]) {
    if (model && model[kind] && !state.key) {
      const title = `${kind === "report" ? "Report" : "Card"} of ${model.name}`;
      at("links").append(" ", make("a", title, { href: model[kind].slice(1), class: kind }));
    }
  }
}

// Describe a model; one that waits to be asked for is opened.
async function know(name) {
  let model = state.models.find((one) => one.name === name);
  if (!model && name) {
    model = await call(`adapters/${encodeURIComponent(name)}`);
    state.models.push(model);
    describeModel();
  }
  return model;
}

function readLine(line, pair) {
  const parts = line.split("\t");
  return pair && parts.length === 2 ? parts : line;
}

// Texts that the server refuses get no answer, and others are asked again in smaller parts.
async function label(model, texts) {
  try {
    return (await call("predictions", { model, texts })).predictions;
  } catch (error) {
    if (![413, 422, 504].includes(error.status)) throw error;
    if (texts.length === 1 && error.status !== 504) return [null];
    if (texts.length === 1) throw error;
    const half = texts.length >> 1;
    return [...await label(model, texts.slice(0, half)), ...await label(model, texts.slice(half))];
  }
}

async function predict(texts, names) {
  const told = [];
  for (const model of names) told.push(await call("predictions", { model, texts }));
  return told;
}

function describeScore(name, score, told) {
  const row = make("div", undefined, { class: "score" });
  const inRange = told.task !== "regression";
  row.append(make("span", name));
  if (inRange) row.append(make("meter", undefined, { min: 0, max: 1, value: score, "aria-label": `${told.model}: ${name}` }));
  else row.append(make("span", ""));
  row.append(make("span", inRange ? `${(100 * score).toFixed(1)} %` : score.toFixed(3)));
  return row;
}

function describeSide(told, index, text) {
  const given = told.predictions[index];
  const side = make("div");
  const said = given.label ?? given.labels ?? given.value ?? given.scores[0].label;
  const verdict = Array.isArray(said) ? said.join(", ") || "no label" : String(said);
  side.append(make("p", `${verdict}${given.abstain ? " (abstains)" : ""}`, { class: "verdict" }));
  side.append(make("p", `${told.model}@${told.digest}`, { class: "hint small" }));
  for (const one of given.scores.slice(0, 8)) side.append(describeScore(one.label, one.score, told));
  const notes = [];
  if (given.conformal_set && given.conformal_set.length !== 1) notes.push(`cannot exclude: ${given.conformal_set.join(", ") || "none"}`);
  if (given.typicality !== undefined && given.typicality !== null) notes.push(`typicality ${given.typicality.toFixed(3)}${given.atypical ? ", atypical" : ""}`);
  if (notes.length) side.append(make("p", notes.join("; "), { class: "hint small" }));
  const more = make("p", undefined, { class: "small" });
  const named = `Which words? ${told.model}: ${(Array.isArray(text) ? text.join(" ") : text).slice(0, 60)}`;
  const button = make("button", "Which words?", { type: "button", "aria-label": named });
  button.addEventListener("click", async () => {
    button.disabled = true;
    complain(null);
    try {
      more.replaceChildren(...markWords(await call("explanations", { model: told.model, text })));
      more.tabIndex = -1;
      more.focus();
    } catch (error) {
      button.disabled = false;
      complain(error);
    }
  });
  more.append(button);
  side.append(more);
  return side;
}

function markWords(found) {
  const most = Math.max(1e-9, ...found.words.map((word) => Math.abs(word.contribution)));
  const parts = [];
  let end = 0;
  const signs = [...found.text];
  for (const word of found.words) {
    parts.push(signs.slice(end, word.start).join(""));
    const strength = Math.min(4, Math.round((4 * Math.abs(word.contribution)) / most));
    const kind = word.contribution >= 0 ? "for" : "against";
    const sign = word.contribution >= 0 ? "+" : "−";
    const said = `${sign}${Math.abs(word.contribution).toFixed(2)} ${kind} ${found.label}`;
    parts.push(make("mark", signs.slice(word.start, word.end).join(""), { class: `${kind} s${strength}`, title: said }));
    parts.push(make("span", ` (${said})`, { class: "unseen" }));
    end = word.end;
  }
  parts.push(signs.slice(end).join(""), make("span", ` (for or against ${found.label})`, { class: "hint" }));
  return parts;
}

function show(texts, told) {
  at("answers").replaceChildren(...texts.map((text, index) => {
    const answer = make("article", undefined, { class: "answer" });
    answer.append(make("p", Array.isArray(text) ? text.join(" | ") : text));
    const sides = make("div", undefined, { class: "sides" });
    sides.append(...told.map((one) => describeSide(one, index, text)));
    answer.append(sides);
    return answer;
  }));
}

function remember(texts, names) {
  state.history.unshift({ texts, names });
  state.history.splice(20);
  at("forget").hidden = false;
  at("history").replaceChildren(...state.history.map((past) => {
    const row = make("li");
    const lines = past.texts.map((text) => (Array.isArray(text) ? text.join("\t") : text));
    const button = make("button", `${past.names.join(" | ")}: ${lines.join(" / ").slice(0, 120)}`, { type: "button" });
    button.addEventListener("click", () => {
      at("texts").value = lines.join("\n");
      [at("model").value, at("other").value] = [past.names[0], past.names[1] || ""];
      at("texts").focus();
      at("ask").requestSubmit();
    });
    row.append(button);
    return row;
  }));
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const lines = at("texts").value.split("\n").filter((line) => line.trim());
  const names = [at("model").value, at("other").value].filter((name, index) => name || index === 0);
  complain(null);
  if (!lines.length) { complain("Type a text first."); return; }
  const button = at("ask").querySelector("button");
  button.disabled = true;
  try {
    const models = await Promise.all(names.map(know));
    const texts = lines.map((line) => readLine(line, models.some((one) => one && one.pair)));
    show(texts, await predict(texts, names));
    remember(texts, names);
  } catch (error) {
    complain(error);
  }
  button.disabled = false;
});
at("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
at("model").addEventListener("change", () => know(at("model").value).then(describeModel, complain));
at("forget").addEventListener("click", () => {
  state.history = [];
  at("history").replaceChildren();
  at("forget").hidden = true;
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = at("key").value;
  listModels();
});

// RFC 4180: cells in quotes may hold commas, line ends and doubled quotes.
export function readCsv(text) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  const source = text.replace(/^\ufeff/, "");
  for (let place = 0; place < source.length; place += 1) {
    const sign = source[place];
    if (quoted) {
      if (sign === '"' && source[place + 1] === '"') { cell += '"'; place += 1; }
      else if (sign === '"') quoted = false;
      else cell += sign;
    } else if (sign === '"' && cell === "") quoted = true;
    else if (sign === ",") { row.push(cell); cell = ""; }
    else if (sign === "\n" || sign === "\r") {
      if (sign === "\r" && source[place + 1] === "\n") place += 1;
      row.push(cell); rows.push(row); row = []; cell = "";
    } else cell += sign;
  }
  if (cell !== "" || row.length) { row.push(cell); rows.push(row); }
  return rows.filter((one) => one.length > 1 || one[0] !== "");
}

// A cell that a spreadsheet would take for a formula gets a ' before it.
export function writeCsv(rows) {
  const write = (cell) => {
    const text = typeof cell === "number" ? String(cell) : String(cell ?? "").replace(/^(?=[=+\-@\t\r])/, "'");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(write).join(",")).join("\r\n") + "\r\n";
}

async function takeFile(file) {
  if (!file) return;
  complain(null);
  const rows = readCsv(await file.text());
  if (rows.length < 2) { complain("The file has no rows below its header."); return; }
  state.rows = rows;
  for (const id of ["column", "second"]) {
    at(id).replaceChildren(...rows[0].map((name, index) => make("option", name, { value: index })));
  }
  const usual = rows[0].findIndex((name) => /^(text|sentence|review|content|body)$/i.test(name.trim()));
  at("column").value = String(Math.max(0, usual));
  at("second").value = String(Math.min(Math.max(0, usual) + 1, rows[0].length - 1));
  at("column").disabled = at("second").disabled = at("run").disabled = false;
  at("download").hidden = true;
  at("file-state").textContent = `${file.name}: ${rows.length - 1} rows`;
}

at("file").addEventListener("change", () => takeFile(at("file").files[0]));
for (const [kind, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  at("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", over);
    if (kind === "drop") takeFile(event.dataTransfer.files[0]);
  });
}

at("run").addEventListener("click", async () => {
  const [header, ...rows] = state.rows;
  const model = at("model").value;
  at("run").disabled = true;
  complain(null);
  let pair;
  try {
    pair = (await know(model))?.pair;
  } catch (error) {
    at("run").disabled = false;
    complain(error);
    return;
  }
  const columns = [Number(at("column").value), ...(pair ? [Number(at("second").value)] : [])];
  const read = (index) => columns.map((column) => rows[index][column] || "");
  const usable = rows.map((row, index) => index).filter((index) => read(index).every((text) => text.trim()));
  const answers = new Array(rows.length).fill(null);
  at("progress").hidden = false;
  at("progress").max = Math.max(1, usable.length);
  at("progress").value = 0;
  try {
    for (let start = 0; start < usable.length; start += CHUNK) {
      const part = usable.slice(start, start + CHUNK);
      const told = await label(model, part.map((index) => (pair ? read(index) : read(index)[0])));
      part.forEach((index, place) => { answers[index] = told[place]; });
      at("progress").value = start + part.length;
      at("file-state").textContent = `${start + part.length} of ${usable.length} rows`;
    }
    const names = (answers.find((one) => one)?.scores || []).map((one) => one.label).sort();
    const cells = answers.map((one) => {
      if (!one) return ["", "", ...names.map(() => "")];
      const said = one.label ?? one.labels ?? one.value ?? "";
      const scores = new Map(one.scores.map((each) => [each.label, each.score]));
      return [Array.isArray(said) ? said.join("|") : said, one.scores[0].score, ...names.map((name) => scores.get(name))];
    });
    const told = [[...header, "predicted", "predicted_score", ...names.map((name) => `score_${name}`)],
      ...rows.map((row, index) => [...row, ...cells[index]])];
    at("download").href = URL.createObjectURL(new Blob([writeCsv(told)], { type: "text/csv" }));
    at("download").download = "labelled.csv";
    at("download").hidden = false;
    const labelled = answers.filter((one) => one).length;
    const left = [[rows.length - usable.length, "without a text"], [usable.length - labelled, "refused"]];
    const notes = left.filter(([count]) => count).map(([count, why]) => `, ${count} ${why}`);
    at("file-state").textContent = `${labelled} rows labelled${notes.join("")}`;
  } catch (error) {
    complain(error);
  }
  at("run").disabled = false;
});

listModels();
