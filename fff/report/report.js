// Shows the worst structures with the viewer of the chemiscope package, which stands in the page before this.
"use strict";
(() => {
  const box = document.getElementById("viewer");
  const rows = [...document.querySelectorAll("[data-structure]")];
  const mark = (index) => {
    for (const row of rows) {
      row.closest("tr").classList.toggle("shown", Number(row.dataset.structure) === index);
    }
  };
  const giveUp = (reason) => {
    box.textContent = `The structures cannot be shown here: ${reason} The table below has their numbers.`;
    box.dataset.state = "failed";
    for (const row of rows) {
      row.disabled = true;
    }
  };
  const begin = async () => {
    const warnings = new Chemiscope.Warnings();
    warnings.addHandler((message) => console.warn(message));
    const places = { meta: "meta", structure: "structure", info: "info" };
    const dataset = JSON.parse(document.getElementById("structures").textContent);
    const viewer = await Chemiscope.StructureVisualizer.load(places, dataset, warnings);
    const told = viewer.info.onchange;
    viewer.info.onchange = (indexes) => {
      told(indexes);
      mark(indexes.structure);
    };
    for (const row of rows) {
      row.addEventListener("click", () => {
        const index = Number(row.dataset.structure);
        viewer.select({ environment: index, structure: index, atom: undefined });
        mark(index);
        box.scrollIntoView({ block: "nearest" });
      });
    }
    mark(0);
    box.dataset.state = "ready";
  };
  window.addEventListener("load", () => {
    begin().catch((error) => giveUp(`${error.message || error}.`));
  });
})();
