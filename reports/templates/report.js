"use strict";
// One clock per case drives all its videos: they start, seek and wait for each other together.
const boxes = [];
for (const box of document.querySelectorAll(".players")) {
  const videos = [...box.querySelectorAll("video")];
  if (!videos.length) continue;
  const button = box.querySelector("button"), seek = box.querySelector("input");
  const clock = box.querySelector("output"), speed = box.querySelector("select");
  const end = Number(box.dataset.seconds), given = Number(box.dataset.given);
  let time = 0, last = 0, playing = false;
  const length = (video) => (Number.isFinite(video.duration) ? video.duration : end);
  const show = () => {
    seek.value = time;
    clock.textContent = `${time.toFixed(1)} s${given ? (time < given ? " given" : " generated") : ""}`;
  };
  const place = (tolerance) => {
    for (const video of videos) {
      const target = Math.min(time, Math.max(0, length(video) - 0.001));
      if (Math.abs(video.currentTime - target) > tolerance) video.currentTime = target;
    }
  };
  const load = () => videos.forEach((video) => { if (video.preload === "none") video.preload = "auto"; });
  const pause = () => {
    playing = false;
    button.textContent = "▶";
    videos.forEach((video) => video.pause());
  };
  const tick = (now) => {
    if (!playing) return;
    const waiting = videos.some((v) => !v.error && v.readyState < 2 && v.networkState !== 3);
    if (!waiting) time += Math.min(0.25, (now - last) / 1000) * Number(speed.value);
    last = now;
    if (time >= end) { time = 0; place(0); }
    for (const video of videos) {
      const over = time >= length(video) - 0.02;
      if ((waiting || over) && !video.paused) video.pause();
      if (!waiting && !over && video.paused) video.play().catch(() => {});
      video.playbackRate = Number(speed.value);
    }
    if (!waiting) place(0.15);
    show();
    requestAnimationFrame(tick);
  };
  const play = () => {
    boxes.forEach((other) => other.pause());
    load();
    playing = true;
    button.textContent = "❚❚";
    last = performance.now();
    requestAnimationFrame(tick);
  };
  button.addEventListener("click", () => (playing ? pause() : play()));
  seek.addEventListener("input", () => { load(); time = Number(seek.value); place(0); show(); });
  videos.forEach((video) => {
    video.controls = false;
    video.addEventListener("click", () => button.click());
  });
  box.closest("details").addEventListener("toggle", (event) => { if (!event.target.open) pause(); });
  new IntersectionObserver((entries, observer) => {
    if (entries.some((entry) => entry.isIntersecting)) { load(); observer.disconnect(); }
  }, { rootMargin: "200px" }).observe(box);
  boxes.push({ pause });
  show();
}
