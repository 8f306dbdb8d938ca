document.querySelectorAll(".graph").forEach((graph) => {
  const svg = graph.querySelector("svg"), wide = svg.viewBox.baseVal.width, high = svg.viewBox.baseVal.height;
  const choices = graph.parentElement.querySelectorAll(".colours input");
  const paint = (by) => svg.querySelectorAll(".node").forEach((node) => node.setAttribute("data-colour", node.getAttribute("data-" + by)));
  choices.forEach((one) => { one.addEventListener("change", () => paint(one.value)); if (one.checked) paint(one.value); });
  let zoom = Math.min(1, Math.max(0.85, graph.clientWidth / wide)), from = null;
  const show = () => { svg.setAttribute("width", wide * zoom); svg.setAttribute("height", high * zoom); };
  graph.addEventListener("keydown", (event) => {
    if (event.key === "+" || event.key === "-") { zoom = Math.min(3, Math.max(0.15, zoom * (event.key === "+" ? 1.25 : 0.8))); show(); }
  });
  graph.addEventListener("wheel", (event) => {
    if (event.ctrlKey) { event.preventDefault(); zoom = Math.min(3, Math.max(0.15, zoom * (event.deltaY < 0 ? 1.1 : 0.9))); show(); }
  }, { passive: false });
  graph.addEventListener("pointerdown", (event) => { from = [event.clientX + graph.scrollLeft, event.clientY + graph.scrollTop]; });
  window.addEventListener("pointerup", () => { from = null; });
  graph.addEventListener("pointermove", (event) => { if (from) { graph.scrollLeft = from[0] - event.clientX; graph.scrollTop = from[1] - event.clientY; } });
  show();
});
