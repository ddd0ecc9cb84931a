// Adds the orders' maps up to where the slider stands; on paper, all of them in light colours.
const dark = matchMedia("screen and (prefers-color-scheme: dark)"), paper = matchMedia("print");
let printing = false; // browsers differ in whether the event or the media query comes first
for (const build of document.querySelectorAll(".build")) {
  const data = JSON.parse(build.querySelector("script").textContent);
  const range = build.querySelector("input"), output = build.querySelector("output");
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const maps = data.maps.map((text) => new Float32Array(bytes(text).buffer));
  const canvases = [...build.querySelectorAll(".quad")].map((quad) => [...quad.querySelectorAll("canvas")]);

  const paint = (canvas, values, stops) => {
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    values.forEach((value, i) => {
      const place = (Math.max(-1, Math.min(1, value / data.limit)) + 1) / 2 * (stops.length - 1);
      const below = Math.min(Math.floor(place), stops.length - 2), part = place - below;
      const colour = stops[below].map((channel, k) => Math.round(channel + part * (stops[below + 1][k] - channel)));
      image.data.set([...colour, 255], 4 * i);
    });
    context.putImageData(image, 0, 0);
  };
  const draw = (step, stops) => {
    output.textContent = data.steps[step - 1];
    range.setAttribute("aria-valuetext", data.steps[step - 1]);
    build.querySelector(".ramp").style.background = `linear-gradient(90deg, ${stops.map((c) => `rgb(${c})`)})`;
    canvases.forEach(([sofar, missing, whole], k) => {
      const size = sofar.width * sofar.height, map = (i) => maps[k].subarray(i * size, (i + 1) * size);
      const now = map(step - 1), feature = map(data.steps.length);
      paint(sofar, now, stops);
      paint(whole, feature, stops);
      paint(missing, feature.map((value, i) => value - now[i]), stops);
    });
  };
  const show = () => (printing || paper.matches)
    ? draw(data.steps.length, data.light)
    : draw(Number(range.value), dark.matches ? data.dark : data.light);
  range.addEventListener("input", show);
  for (const query of [dark, paper]) query.addEventListener("change", show);
  addEventListener("beforeprint", () => { printing = true; show(); });
  addEventListener("afterprint", () => { printing = false; show(); });
  build.hidden = false;
  show();
}
