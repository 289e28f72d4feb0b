// Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
// Draws maps on one colour scale: of all levels, hour by hour or of a whole period, or of the land use, on which a square
// is placed. Gradio runs this once per viewer, with `element`, `props`, `trigger`, `watch`.
const view = { data: null, hour: 0, place: [0, 0] };

function make(tag, attributes = {}, text = "") {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

function show() {
  const box = element.querySelector(".zd-zoom");
  box.replaceChildren();
  if (!props.value) {
    view.data = null;
    if (box.dataset.empty) box.append(make("p", {}, box.dataset.empty));
    return;
  }
  const data = JSON.parse(props.value);
  const sameLength = view.data && view.data.labels.length === data.labels.length;
  if (!sameLength) view.hour = data.busiest;
  view.data = data;
  view.place = data.place;
  for (const level of data.levels) {
    level.bytes = Uint8Array.from(atob(level.colours), (letter) => letter.charCodeAt(0));
  }
  if (data.labels.length > 1) box.append(makeSlider(data));
  box.append(data.classes ? makeClasses(data) : makeLegend(data), makeMaps(data));
  draw();
}

function makeSlider(data) {
  const row = make("div", { class: "zd-time" });
  const label = make("label", { for: "zd-hour" }, "Hour of the period ");
  const output = make("output", { id: "zd-when", for: "zd-hour" });
  const slider = make("input", {
    type: "range", id: "zd-hour", min: 0, max: data.labels.length - 1, step: 1, value: view.hour,
  });
  slider.addEventListener("input", () => {
    view.hour = Number(slider.value);
    draw();
  });
  label.append(output);
  row.append(label, slider);
  return row;
}

function makeLegend(data) {
  const legend = make("div", { class: "zd-legend" });
  const colours = [0, 32, 64, 96, 128, 160, 192, 224, 255].map((index) => `rgb(${data.palette[index]})`);
  const bar = make("div", { class: "zd-bar", role: "img", "aria-label": `Colour scale, ${data.unit}` });
  bar.style.background = `linear-gradient(to right, ${colours})`;
  const ticks = make("div", { class: "zd-ticks" });
  for (const tick of data.ticks) {
    const mark = make("span", {}, tick.label);
    mark.style.left = `${100 * Math.min(tick.position, 1)}%`;
    ticks.append(mark);
  }
  legend.append(make("div", { class: "zd-unit" }, `${data.unit}: ${data.meaning}`), bar, ticks);
  return legend;
}

function makeClasses(data) {
  const legend = make("ul", { class: "zd-classes" });
  data.classes.forEach((name, index) => {
    if (!data.levels[0].bytes.includes(index)) return;
    const swatch = make("span", { class: "zd-swatch" });
    swatch.style.background = `rgb(${data.palette[index]})`;
    const entry = make("li");
    entry.append(swatch, make("span", {}, name));
    legend.append(entry);
  });
  return legend;
}

function makeMaps(data) {
  const maps = make("div", { class: data.levels.length > 1 ? "zd-maps" : "zd-one-map" });
  const [, height, width] = data.levels[data.levels.length - 1].shape;
  for (const level of data.levels) {
    const figure = make("figure");
    const canvas = make("canvas", { tabindex: 0, role: "img" });
    // Twelve pixels a cell: enough for the outline of a chosen place.
    canvas.width = width * 12;
    canvas.height = height * 12;
    // One map alone need not be taller than a screen.
    if (data.levels.length === 1) canvas.style.width = `min(100%, ${Math.round((460 * width) / height)}px)`;
    canvas.addEventListener("click", (event) => {
      const area = canvas.getBoundingClientRect();
      choose(
        Math.floor(((event.clientY - area.top) / area.height) * height),
        Math.floor(((event.clientX - area.left) / area.width) * width),
        true,
      );
    });
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      const [row, column] = onScreen(view.place);
      choose(row + move[0] * level.factor, column + move[1] * level.factor, false);
    });
    level.canvas = canvas;
    level.caption = make("figcaption");
    figure.append(level.caption, canvas);
    maps.append(figure);
  }
  return maps;
}

// The first row of the data is the southern one, unless the file says otherwise; the screen's first row is in the north.
function onScreen([row, column]) {
  const height = view.data.levels[view.data.levels.length - 1].shape[1];
  return [view.data.north_up ? row : height - 1 - row, column];
}

let waiting = null;
function choose(screenRow, screenColumn, atOnce) {
  const [, height, width] = view.data.levels[view.data.levels.length - 1].shape;
  const row = Math.max(0, Math.min(height - 1, screenRow));
  const column = Math.max(0, Math.min(width - 1, screenColumn));
  view.place = onScreen([row, column]);
  draw();
  clearTimeout(waiting);
  waiting = setTimeout(() => trigger("select", { row: view.place[0], column: view.place[1] }), atOnce ? 0 : 400);
}

// A square of `side` cells around a place, inside the area: row and column of its first cell, and its side.
function squareAround(place, wanted) {
  const size = view.data.levels[view.data.levels.length - 1].shape.slice(1);
  const side = Math.min(wanted, ...size);
  const first = place.map((at, axis) => Math.min(Math.max(at - Math.floor(side / 2), 0), size[axis] - side));
  return [...first, side];
}

function outline(context, [row, column, side], scale, strokes, dashes) {
  const rows = context.canvas.height / scale;
  const top = view.data.north_up ? row : rows - row - side;
  context.setLineDash(dashes);
  for (const [colour, width] of strokes) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(column * scale, top * scale, side * scale, side * scale);
  }
  context.setLineDash([]);
}

function draw() {
  const data = view.data;
  const slider = element.querySelector("#zd-hour");
  if (slider) {
    element.querySelector("#zd-when").textContent = data.labels[view.hour];
    slider.setAttribute("aria-valuetext", data.labels[view.hour]);
  }
  for (const level of data.levels) {
    const [steps, rows, columns] = level.shape;
    const step = Math.min(Math.floor(view.hour / level.hours), steps - 1);
    const context = level.canvas.getContext("2d");
    const side = 12 * level.factor;
    for (let row = 0; row < rows; row += 1) {
      const top = data.north_up ? row : rows - 1 - row;
      for (let column = 0; column < columns; column += 1) {
        context.fillStyle = `rgb(${data.palette[level.bytes[(step * rows + row) * columns + column]]})`;
        context.fillRect(column * side, top * side, side, side);
      }
    }
    if (data.square) outline(context, data.square, 12, [["#000", 5], ["#fff", 2]], [14, 10]);
    const unit = view.place.map((index) => Math.floor(index / level.factor));
    const mark = data.side ? squareAround(view.place, data.side) : [...unit, 1];
    outline(context, mark, data.side ? 12 : side, [["#000", 9], ["#fff", 3]], []);
    const [day, clock] = data.labels[step * level.hours].split(", ");
    const [name, ...size] = level.title.split(", ");
    const when = level.hours >= 24 ? `on ${day.split(" ").slice(0, 2).join(" ")}` : `from ${clock}`;
    level.caption.replaceChildren(make("b", {}, name), make("span", {}, size.join(", ")));
    if (slider) level.caption.append(make("span", {}, when));
    level.canvas.setAttribute(
      "aria-label",
      `Map: ${level.title}. ${data.extent}. Marked: row ${view.place[0]}, column ${view.place[1]}. Arrow keys move the mark.`,
    );
  }
}

show();
watch("value", show);
