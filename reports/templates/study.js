"use strict";
const study = document.body.dataset.study;
const sections = [...document.querySelectorAll("section[data-pair]")];
const end = document.getElementById("end");
const annotator = document.getElementById("annotator");
const memory = {
  load() {
    try { return JSON.parse(localStorage.getItem("study-" + study)) || {}; } catch { return {}; }
  },
  store(state) {
    try { localStorage.setItem("study-" + study, JSON.stringify(state)); } catch { /* private window: kept until it closes */ }
  },
};
const state = Object.assign({ choices: {}, annotator: "" }, memory.load());
let now = sections.findIndex((section) => !state.choices[section.dataset.pair]);
if (now < 0) now = sections.length;
annotator.value = state.annotator;

const videos = () => (now < sections.length ? [...sections[now].querySelectorAll("video")] : []);
const stop = () => videos().forEach((video) => video.pause());
const play = () => videos().forEach((video) => video.play().catch(() => {}));
const again = () => { videos().forEach((video) => { video.currentTime = 0; }); play(); };
const toggle = () => {
  if (videos().every((video) => video.ended)) again();
  else if (videos().some((video) => !video.paused && !video.ended)) stop();
  else play();
};

function show(index) {
  stop();
  now = Math.max(0, Math.min(sections.length, index));
  sections.forEach((section, i) => { section.hidden = i !== now; });
  end.hidden = now < sections.length;
  document.querySelector(".choices").hidden = now === sections.length;
  document.getElementById("done").textContent = Object.keys(state.choices).length + " of " + sections.length + " chosen";
  const chosen = now < sections.length ? state.choices[sections[now].dataset.pair] : "";
  for (const button of document.querySelectorAll("[data-choice]")) {
    button.setAttribute("aria-pressed", String(button.dataset.choice === chosen));
  }
  if (now < sections.length) again();
}

function choose(choice) {
  if (now === sections.length) return;
  state.choices[sections[now].dataset.pair] = choice;
  memory.store(state);
  show(now + 1);
}

function save() {
  const cell = (text) => '"' + text.replaceAll('"', '""') + '"';
  const lines = sections
    .filter((section) => state.choices[section.dataset.pair])
    .map((section) => [study, section.dataset.pair, state.choices[section.dataset.pair], state.annotator].map(cell).join(","));
  const text = ["study,pair,choice,annotator", ...lines].join("\n") + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "choices-" + study + ".csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

annotator.addEventListener("input", () => { state.annotator = annotator.value.trim(); memory.store(state); });
document.getElementById("save").addEventListener("click", save);
document.getElementById("back").addEventListener("click", () => show(now - 1));
document.getElementById("play").addEventListener("click", toggle);
document.getElementById("again").addEventListener("click", again);
for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => choose(button.dataset.choice));
}
const keys = {
  1: () => choose("left"), ArrowLeft: () => choose("left"),
  2: () => choose("right"), ArrowRight: () => choose("right"),
  0: () => choose("tie"),
  " ": toggle, r: again, b: () => show(now - 1),
};
document.addEventListener("keydown", (event) => {
  if (event.target === annotator || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
  if (event.repeat) return;
  event.preventDefault();
  keys[event.key]();
});
show(now);
