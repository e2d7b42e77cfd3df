// The page around the viewer: files one after another to the model, and what it answered in words and bars.
//
// Gradio runs this once, with: element (page.html within it), props.value (what desk.py says of the checkpoint, later
// each reply), watch, trigger("ask", ...) for the queue to the model, server for what needs no model, upload.

const id = (name) => element.querySelector('[data-id="' + name + '"]');
const about = props.value;
const state = {entries: [], current: null, working: false, source: "findings", points: about.has_operating_points};

const viewer = new Viewer(id("stage"), {onState: tellViewer});

// --- Asking the server -----------------------------------------------------------------------------------------------

const waiting = new Map();
let lastId = 0;
let lastQuestion = Promise.resolve();
let setSession;
const session = new Promise((resolve) => (setSession = resolve));

watch("value", () => {
  const reply = props.value;
  if (reply.id === 0) setSession(reply.session);
  else if (waiting.has(reply.id)) {
    waiting.get(reply.id)(reply);
    waiting.delete(reply.id);
  }
});

// One question after another: replies that come at once would be one change of the value.
function ask(kind, message) {
  const asked = lastQuestion.then(
    () =>
      new Promise((resolve) => {
        waiting.set(++lastId, resolve);
        trigger("ask", {message: {...message, kind, id: lastId}});
      }),
  );
  lastQuestion = asked;
  return asked;
}

// --- Files -----------------------------------------------------------------------------------------------------------

function add(files) {
  const entries = files.map((given) => ({...given, state: "waiting"}));
  state.entries.push(...entries);
  if (entries.length) id("examples-box").open = false;
  if (entries.length && !state.current) state.current = entries[0];
  else if (entries.length === 1) state.current = entries[0];
  showCurrent();
  work();
}

async function work() {
  if (state.working) return;
  state.working = true;
  const next = () =>
    state.current && state.current.state === "waiting"
      ? state.current
      : state.entries.find((entry) => entry.state === "waiting");
  for (let entry = next(); entry; entry = next()) {
    try {
      await answer(entry);
    } catch (error) {
      fail(entry, "The server does not answer: " + (error.message || error));
    }
    showList();
  }
  state.working = false;
  showList();
}

async function answer(entry) {
  entry.state = "reading";
  showList();
  if (entry === state.current) showCurrent();
  if (!(await receive(entry))) return;
  entry.state = "answering";
  showList();
  if (entry === state.current) showPixels(entry);
  const views = Math.min(about.most_views, Math.max(0, Math.round(Number(id("views").value) || 0)));
  const reply = await ask("answer", {token: entry.token, candidates: id("candidates").checked, views});
  if (reply.error) return fail(entry, reply.error);
  Object.assign(entry, {state: "answered", shown: reply.shown, seconds: reply.seconds, chosen: null, heat: null});
  Object.assign(entry, {said: [], pinned: null, pointed: null});
  if (entry === state.current) showCurrent();
}

// Sends the file; the browser keeps it, so that it can be sent again when the server has dropped it.
async function receive(entry) {
  const message = {session: await session, name: entry.name};
  for (let tries = 0; tries < 2; tries++) {
    if (entry.file) message.path = (await upload(entry.file)).path;
    else message.example = entry.example;
    const reply = await server.receive(message);
    if (reply.gone && tries === 0) continue;
    if (reply.error) return fail(entry, reply.error);
    Object.assign(entry, reply, {error: null});
    return true;
  }
}

function fail(entry, error) {
  entry.state = "failed";
  entry.error = error;
  if (entry === state.current) showCurrent();
  return false;
}

// What is asked of a radiograph that the server has dropped is asked again when it is there again.
async function asking(entry, question) {
  const reply = await question(entry.token);
  if (!reply.gone) return reply;
  entry.state = "waiting";
  await work();
  if (entry.state === "answered") return question(entry.token);
  return {error: entry.error || "It is being read again: try again in a moment."};
}

async function showPixels(entry) {
  const isShown = () => entry === state.current;
  viewer.open(entry.width, entry.height);
  showOutlines();
  const picture = await asking(entry, (token) => server.pixels({token}));
  if (picture.error || !isShown()) return;
  const flat = await unpacked(picture);
  if (!isShown()) return;
  viewer.setPixels(flat);
  id("depth").textContent = "8-bit picture, as the model saw it" + reducedWords(flat);
  const behind = await server.pixels({token: entry.token, deep: true});
  if (behind.error || behind.none || !isShown()) return;
  const deep = await unpacked(behind);
  if (!isShown()) return;
  viewer.setPixels(deep);
  const [low, high] = [viewer.first.lowest, viewer.first.highest].map(Math.round);
  id("depth").textContent = "Full depth: values " + low + " to " + high + reducedWords(deep);
}

function reducedWords(pixels) {
  return pixels.reduced > 1 ? ", shown at 1/" + pixels.reduced + " of its size" : "";
}

// Files and the folders' files below what was dropped.
async function dropped(items) {
  const roots = [...items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  const files = [];
  const walk = async (entry) => {
    if (entry.name.startsWith(".")) return;
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      files.push({file, name: entry.fullPath.replace(/^\//, "")});
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return;
      for (const one of some) await walk(one);
    }
  };
  for (const root of roots) await walk(root);
  return files.sort((one, other) => one.name.localeCompare(other.name));
}

function chosenFiles(list) {
  return [...list]
    .filter((file) => !file.name.startsWith("."))
    .map((file) => ({file, name: file.webkitRelativePath || file.name}))
    .sort((one, other) => one.name.localeCompare(other.name));
}

// --- What is shown ---------------------------------------------------------------------------------------------------

function select(entry) {
  if (state.current === entry && entry.state !== "stopped") return;
  state.current = entry;
  if (entry.state === "stopped") entry.state = "waiting";
  viewer.close();
  showCurrent();
  if (entry.token) showPixels(entry);
  work();
}

function showCurrent() {
  const entry = state.current;
  const shown = entry && entry.shown;
  id("empty").hidden = Boolean(entry);
  const busy = entry && {waiting: "Waiting", reading: "Reading", answering: "Answering"}[entry.state];
  id("busy").hidden = !busy;
  id("busy").textContent = busy ? busy + " …" : "";
  id("error").hidden = !(entry && entry.error);
  id("error").textContent = (entry && entry.error) || "";
  if (entry && entry.state === "failed") viewer.close();
  id("answer-box").hidden = !shown;
  const warnings = shown ? shown.warnings : (entry && entry.state !== "failed" && entry.warnings) || [];
  id("warnings-box").hidden = !warnings.length;
  fill(id("warnings"), warnings.map((words) => made("li", {}, words)));
  showHeat(entry && entry.heat);
  if (shown) {
    const keys = shown.sources.map((source) => source.key);
    if (!keys.includes(state.source)) state.source = "findings";
    fill(id("source"), shown.sources.map((source) => made("option", {value: source.key}, source.name)));
    id("source").value = state.source;
    id("source-box").hidden = keys.length < 2;
    fill(id("diagnoses"), shown.diagnoses.map(diagnosisRow));
    id("asking").textContent = "";
    showSaid();
    id("no-finding").textContent =
      shown.no_finding === null || shown.no_finding === undefined
        ? ""
        : "The answer “No finding” had a probability of " + percent(shown.no_finding) + ".";
    fill(
      id("words"),
      Object.entries(shown.answers).map(([task, words]) => made("p", {}, "[" + task + "] " + words)),
    );
    for (const kind of ["SR", "PR"]) element.querySelector('[data-download="' + kind + '"]').disabled = !entry.is_dicom;
    id("dicom-note").textContent = entry.is_dicom
      ? "The DICOM objects carry the patient's tags, as a PACS needs them, and of the boxes chosen above those that reach their operating point."
      : "DICOM objects are made of DICOM files alone.";
    id("question-answer").textContent = "";
    id("question-note").textContent = "";
  }
  showFindings();
  showList();
}

function source() {
  const shown = state.current && state.current.shown;
  return shown ? shown.sources.find((one) => one.key === state.source) : null;
}

function isVisible(row) {
  if (state.points && source().has_operating_points) return row.above;
  return row.score === null || row.score >= Number(id("threshold").value);
}

function showFindings() {
  const from = source();
  showOutlines();
  if (!from) return;
  const points = state.points && from.has_operating_points;
  id("points-box").hidden = !from.has_operating_points;
  id("points").checked = points;
  id("threshold").classList.toggle("lg-idle", points);
  id("threshold-value").textContent = points ? "each label's own" : Number(id("threshold").value).toFixed(2);
  id("threshold-note").textContent = from.has_operating_points
    ? "Marks: operating points of the labels found."
    : "This checkpoint has no operating points: everything that it names is shown.";
  const marks = new Map(from.rows.filter((row) => row.threshold !== null).map((row) => [row.label, row]));
  fill(
    id("marks"),
    [...marks.values()].map((row) =>
      made("span", {style: "left: " + 100 * row.threshold + "%", title: row.label + " " + row.threshold.toFixed(2)}),
    ),
  );
  const visible = from.rows.filter(isVisible).length;
  id("count").textContent = from.rows.length ? visible + " of " + from.rows.length + " shown" : "none";
  fill(id("findings"), from.rows.map(findingRow));
}

function showOutlines() {
  const from = source();
  // What is pointed at in the answers in words stands alone on the radiograph.
  const words = state.current && (state.current.pointed || state.current.pinned);
  if (words) {
    viewer.choose(null);
    viewer.setOutlines(words.outlines);
    id("stage").setAttribute("aria-label", "Radiograph, outlined: " + words.text);
    return;
  }
  const chosen = state.current && state.current.chosen;
  // A row that is chosen shows its outline even below the threshold.
  const rows = from ? from.rows.filter((row) => isVisible(row) || row.number === chosen) : [];
  viewer.choose(chosen);
  viewer.setOutlines(rows);
  const names = rows.map((row) => row.number + " " + row.label);
  id("stage").setAttribute("aria-label", "Radiograph" + (rows.length ? ", outlined: " + names.join(", ") : ""));
}

function findingRow(row) {
  const visible = isVisible(row);
  const entry = state.current;
  const score = row.score === null ? "no score" : row.score.toFixed(2);
  const point = row.threshold === null ? "" : ", operating point " + row.threshold.toFixed(2);
  const sample = svgSample(row);
  const button = made("button", {type: "button", "aria-pressed": String(entry.chosen === row.number), class: "lg-row"}, [
    sample,
    made("span", {class: "lg-label"}, row.number + "  " + row.label),
    made("span", {class: "lg-value"}, (visible ? "" : "hidden ") + score),
  ]);
  button.addEventListener("click", () => {
    entry.pinned = null;
    showSaid();
    entry.chosen = entry.chosen === row.number ? null : row.number;
    showFindings();
    focusRow(row.number);
  });
  const parts = [button];
  if (about.local) {
    const map = made("button", {type: "button", class: "lg-map", "aria-label": "Heat map of " + row.label}, "Map");
    map.title = "Where the model sees it: a heat map";
    map.addEventListener("click", () => askHeat(row));
    parts.push(map);
  }
  if (row.score !== null) parts.push(meter(row.label, row.score, row.threshold, score + point, visible));
  if (row.from.length) parts.push(made("span", {class: "lg-faint lg-from-row"}, row.from.join(" + ")));
  return made("li", {class: visible ? "" : "lg-below", "data-number": row.number}, parts);
}

function focusRow(number) {
  const button = id("findings").querySelector('[data-number="' + number + '"] .lg-row');
  if (button) button.focus({preventScroll: true});
}

function diagnosisRow(row) {
  const value = row.probability === null ? "no score" : percent(row.probability);
  const words = made("div", {class: "lg-row"}, [
    made("span", {class: "lg-label"}, row.label),
    made("span", {class: "lg-value"}, (row.named ? "named " : "") + value),
  ]);
  const bar = row.probability === null ? [] : [meter(row.label, row.probability, null, value, row.named)];
  return made("li", {class: row.named ? "lg-named" : "lg-below"}, [words, ...bar]);
}

function meter(label, share, mark, words, strong) {
  const parts = [made("span", {class: "lg-fill", style: "width: " + 100 * share + "%"})];
  if (mark !== null) parts.push(made("span", {class: "lg-mark", style: "left: " + 100 * mark + "%"}));
  return made(
    "div",
    {
      class: strong ? "lg-bar" : "lg-bar lg-weak",
      role: "meter",
      "aria-label": label,
      "aria-valuemin": "0",
      "aria-valuemax": "1",
      "aria-valuenow": share.toFixed(3),
      "aria-valuetext": words,
    },
    parts,
  );
}

// The outline as it is drawn, on black as it is drawn there.
function svgSample(row) {
  const svg = drawn("svg", {viewBox: "0 0 30 16", class: "lg-sample", "aria-hidden": "true"});
  svg.append(drawn("rect", {x: 0, y: 0, width: 30, height: 16, fill: "#000", rx: 2}));
  const line = {x1: 3, x2: 27, y1: 8, y2: 8, stroke: row.colour, "stroke-width": 3, "stroke-dasharray": row.dash};
  svg.append(drawn("line", line));
  return svg;
}

function showList() {
  const count = state.entries.length;
  id("list-box").hidden = !count;
  const done = state.entries.filter((entry) => ["answered", "failed"].includes(entry.state)).length;
  const waitingOnes = state.entries.some((entry) => entry.state === "waiting");
  id("progress").textContent = done < count ? done + " of " + count : count + (count === 1 ? " file" : " files");
  id("stop").hidden = !waitingOnes;
  fill(id("list"), state.entries.map(listRow));
}

function listRow(entry) {
  const parts = entry.name.split("/");
  const words = {
    waiting: "waiting",
    stopped: "not answered",
    reading: "reading …",
    answering: "answering …",
    failed: "not usable",
    answered: "",
  }[entry.state];
  let summary = words;
  if (entry.state === "answered") {
    const above = entry.shown.sources[0].rows.filter((row) => row.above).length;
    const doubts = entry.shown.warnings.length;
    summary = above === 1 ? "1 finding" : above + " findings";
    if (doubts) summary += ", " + doubts + (doubts === 1 ? " warning" : " warnings");
  }
  const current = entry === state.current;
  const button = made("button", {type: "button", title: entry.name, "aria-current": String(current)}, [
    made("span", {class: "lg-file"}, parts[parts.length - 1]),
    made("span", {class: entry.state === "failed" ? "lg-summary lg-bad" : "lg-summary"}, summary),
  ]);
  button.addEventListener("click", () => select(entry));
  return made("li", {}, [button]);
}

// --- Questions in words ----------------------------------------------------------------------------------------------

async function askWords(task, asked) {
  const entry = state.current;
  id("asking").textContent = "Asking …";
  const reply = await asking(entry, (token) => ask("words", {token, task, about: asked}));
  if (!reply.error) {
    entry.said = [reply, ...entry.said.filter((one) => one.question !== reply.question)];
    entry.pinned = (task === "refer" && reply.rows.find((row) => row.outlines.length)) || null;
  }
  if (entry !== state.current) return;
  id("asking").textContent = reply.error || "";
  showSaid();
  showOutlines();
}

// Every question with its answer, the last one first.
function showSaid() {
  const entry = state.current;
  const said = (entry && entry.said) || [];
  fill(
    id("said"),
    said.map((one) => {
      const name = {report: "Report", grounded_report: "Report with boxes"}[one.task] || one.about;
      const parts = [made("h3", {}, one.task === "refer" ? "“" + name + "”" : name)];
      if (one.malformed) parts.push(made("p", {class: "lg-caution-text"}, "Not understood: " + one.malformed));
      parts.push(made("ul", {class: "lg-rows"}, one.rows.map((row) => saidRow(entry, one, row))));
      return made("div", {class: "lg-said", "data-task": one.task}, parts);
    }),
  );
}

function saidRow(entry, one, row) {
  const share = row.probability === null ? "" : percent(row.probability);
  const words = one.task === "refer" ? row.marks.join(", ") : row.text;
  const marks = one.task === "refer" ? [] : row.marks.map((mark) => made("span", {class: "lg-tag"}, mark));
  const parts = [
    ...(row.outlines.length ? [svgSample(row.outlines[0])] : []),
    made("span", {class: "lg-label"}, [words, ...marks]),
    made("span", {class: "lg-value"}, share),
  ];
  const doubtful = row.marks.includes("doubtful");
  const item = made("li", {class: doubtful ? "lg-doubtful" : ""});
  if (!row.outlines.length) {
    item.append(made("div", {class: "lg-row"}, parts));
    return item;
  }
  const button = made("button", {type: "button", class: "lg-row", "aria-pressed": String(entry.pinned === row)}, parts);
  const point = (to) => () => {
    entry.pointed = to;
    showOutlines();
  };
  button.addEventListener("pointerenter", point(row));
  button.addEventListener("pointerleave", point(null));
  button.addEventListener("click", () => {
    entry.pointed = null;
    entry.pinned = entry.pinned === row ? null : row;
    for (const other of id("said").querySelectorAll(".lg-row[aria-pressed]")) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", String(entry.pinned === row));
    showOutlines();
  });
  item.append(button);
  return item;
}

// --- Heat map, questions, files to take away -------------------------------------------------------------------------

async function askHeat(row) {
  const entry = state.current;
  const from = state.source;
  id("busy").hidden = false;
  id("busy").textContent = "Looking where " + row.label + " is seen …";
  // Of the answer its own words are explained; what others found is explained as if it had been answered.
  const ofAnswer = from === "findings" || (from === "candidates" && row.index < rowsOf(entry, "findings").length);
  const message = {label: row.label, index: row.index, of_answer: ofAnswer};
  const reply = await asking(entry, (token) => ask("explain", {...message, token}));
  if (entry !== state.current) return;
  id("busy").hidden = true;
  if (reply.error) return say(reply.error);
  entry.heat = reply;
  showHeat(reply);
  id("stage").scrollIntoView({block: "nearest"}); // on a phone it lies above the findings
}

function rowsOf(entry, key) {
  return entry.shown.sources.find((one) => one.key === key).rows;
}

function showHeat(heat) {
  viewer.setHeat(heat ? heat.picture : null);
  viewer.setOpacity(id("opacity").value);
  id("heat-bar").hidden = !heat;
  if (!heat) return;
  id("heat-name").textContent = heat.label;
  id("heat-low").textContent = heat.low;
  id("heat-high").textContent = heat.high;
  id("heat-words").textContent = capital(heat.method) + ". " + heat.what_it_is;
}

async function askQuestion() {
  const entry = state.current;
  id("question-note").textContent = "";
  id("question-answer").textContent = "Asking …";
  const text = id("question").value;
  const reply = await asking(entry, (token) => ask("question", {token, text}));
  if (entry !== state.current) return;
  id("question-answer").textContent = reply.error || reply.text || "(an empty answer)";
  id("question-note").textContent = reply.note || "";
}

async function download(kind) {
  const reply = await asking(state.current, (token) => server.download({token, kind, source: state.source}));
  if (reply.error) return say(reply.error);
  const bytes = Uint8Array.from(atob(reply.data), (letter) => letter.charCodeAt(0));
  const url = URL.createObjectURL(new Blob([bytes], {type: reply.type}));
  const link = made("a", {href: url, download: reply.name});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function say(error) {
  id("error").hidden = false;
  id("error").textContent = error;
}

// --- Small things ----------------------------------------------------------------------------------------------------

function made(name, attributes, content) {
  const one = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== "") one.setAttribute(key, value);
  if (Array.isArray(content)) one.append(...content);
  else if (content !== undefined) one.textContent = content;
  return one;
}

function fill(parent, children) {
  parent.replaceChildren(...children);
}

function percent(share) {
  return (100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0) + " %";
}

function capital(words) {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function tellViewer(now) {
  const width = id("width");
  const level = id("level");
  width.disabled = level.disabled = !now.first;
  if (now.first) {
    const {lowest, highest} = now.first;
    Object.assign(width, {min: (highest - lowest) / 256, max: 2 * (highest - lowest), step: "any"});
    Object.assign(level, {min: lowest, max: highest, step: "any"});
    width.value = now.window.width;
    level.value = now.window.level;
  }
  const window = now.window ? "W " + Math.round(now.window.width) + "  L " + Math.round(now.window.level) : "";
  const zoom = now.zoom ? "  zoom " + Math.round(100 * now.zoom * devicePixelRatio) + " %" : "";
  id("window-state").textContent = window + (window && now.asSeen ? " (as the model saw it)" : "") + zoom;
  id("pixel").textContent = now.pixel ? now.pixel.x + ", " + now.pixel.y + ": " + now.pixel.value : "";
  element.querySelector('[data-do="invert"]').setAttribute("aria-pressed", String(now.inverted));
  element.querySelector('[data-do="boxes"]').setAttribute("aria-pressed", String(now.outlined));
  if (!now.first) id("depth").textContent = "";
}

// --- What is said before any radiograph, and what can be pressed -----------------------------------------------------

function begin() {
  const trained = about.trained_on.length ? ", trained on " + about.trained_on.join(", ") : "";
  id("from").textContent = about.checkpoint + trained;
  id("caution").textContent = about.caution ? "Caution: " + about.caution + "." : "";
  id("caution").hidden = !about.caution;
  id("disclaimer").textContent = about.disclaimer + ".";
  id("calibration").textContent = about.calibrated
    ? "Scores and probabilities are calibrated: of those around 0.8 about 8 in 10 were right on the data that they were calibrated on."
    : "Scores and probabilities are not calibrated: they are the model's own.";
  id("privacy").textContent =
    "Nothing is kept: a file leaves the server's disk when it is read, and its memory when this page is closed or " +
    about.minutes +
    " minutes after it was last used. " +
    (about.server ? "Radiographs are sent to " + about.server + ", which answers." : "No other host is asked.");
  id("more-box").hidden = !about.most_views;
  id("views").max = about.most_views;
  id("examples-box").hidden = !about.examples.length;
  fill(
    id("examples"),
    about.examples.map((name, example) => {
      const button = made("button", {type: "button", title: name}, name);
      button.addEventListener("click", () => add([{name, example}]));
      return button;
    }),
  );
  const tasks = about.tasks.map((task) => made("option", {value: "[" + task.name + "] " + task.words}, "[" + task.name + "]"));
  fill(id("tasks"), [made("option", {value: ""}, "your own"), ...tasks]);
  id("tasks").addEventListener("change", () => (id("question").value = id("tasks").value));

  id("ask-box").hidden = !about.words.length;
  id("unverified").hidden = !about.words.some((task) => task !== "refer");
  for (const [name, task] of [["refer", "refer"], ["question-in-words", "question"]]) {
    id(name).hidden = !about.words.includes(task);
    id(name).addEventListener("submit", (event) => {
      event.preventDefault();
      askWords(task, id(name).querySelector("input").value);
    });
  }
  for (const button of element.querySelectorAll("[data-words]")) {
    button.hidden = !about.words.includes(button.dataset.words);
    button.addEventListener("click", () => askWords(button.dataset.words, ""));
  }

  const drop = id("drop");
  for (const kind of ["dragover", "drop"]) {
    // The whole page takes files: one that misses the field would otherwise be opened in the page's place.
    window.addEventListener(kind, (event) => event.dataTransfer && event.preventDefault());
  }
  window.addEventListener("dragover", () => drop.classList.add("lg-over"));
  for (const kind of ["dragleave", "drop"]) window.addEventListener(kind, () => drop.classList.remove("lg-over"));
  window.addEventListener("drop", async (event) => event.dataTransfer && add(await dropped(event.dataTransfer.items)));
  id("choose").addEventListener("click", () => id("files").click());
  id("choose-folder").addEventListener("click", () => id("folder").click());
  for (const name of ["files", "folder"]) {
    id(name).addEventListener("change", () => {
      add(chosenFiles(id(name).files));
      id(name).value = "";
    });
  }
  id("stop").addEventListener("click", () => {
    for (const entry of state.entries) if (entry.state === "waiting") entry.state = "stopped";
    showCurrent();
  });
  id("close").addEventListener("click", async () => {
    state.entries = [];
    state.current = null;
    viewer.close();
    showCurrent();
    server.forget({session: await session});
  });
  id("again").addEventListener("click", () => {
    if (state.current) state.current.state = "waiting";
    work();
  });

  id("threshold").value = 0;
  id("threshold").addEventListener("input", () => {
    state.points = false;
    showFindings();
  });
  id("points").addEventListener("change", () => {
    state.points = id("points").checked;
    showFindings();
  });
  id("source").addEventListener("change", () => {
    state.source = id("source").value;
    if (state.current) state.current.chosen = null;
    showFindings();
  });
  for (const button of element.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => viewer.do(button.dataset.do));
  }
  for (const button of element.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => download(button.dataset.download));
  }
  for (const name of ["width", "level"]) {
    id(name).addEventListener("input", () => viewer.setWindow(Number(id("width").value), Number(id("level").value)));
  }
  const heatOff = () => {
    if (state.current) state.current.heat = null;
    showHeat(null);
  };
  id("heat-off").addEventListener("click", heatOff);
  id("stage").addEventListener("keydown", (event) => event.key === "h" && heatOff());
  id("opacity").addEventListener("input", () => viewer.setOpacity(id("opacity").value));
  id("ask").addEventListener("click", askQuestion);
  showCurrent();
  id("page").setAttribute("data-ready", "true");
}

begin();
