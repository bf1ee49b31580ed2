"use strict";
// What the page of all runs does: sort by a column, filter, lay ticked runs beside each other. No library, no request.
(() => {
  const told = JSON.parse(document.getElementById("told").textContent);
  const table = document.getElementById("runs"), body = table.tBodies[0], rows = Array.from(body.rows);
  const find = (id) => document.getElementById(id);
  const made = (name, text, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  document.documentElement.classList.add("alive");

  // --- sorting: numbers by their value, texts as people count; what has no value stays at the end
  const asPeopleCount = new Intl.Collator("en", { numeric: true });
  const valueOf = (cell) => {
    if (!cell.classList.contains("number")) return cell.textContent.trim().replace(/^--$/, "");
    return cell.dataset.v === undefined ? "" : Number(cell.dataset.v);
  };
  const sortBy = (column, header) => {
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keyed = rows.map((row) => [valueOf(row.cells[column]), row]);
    keyed.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = typeof a === "number" ? a - b : asPeopleCount.compare(a, b);
      return up ? order : -order;
    });
    body.append(...keyed.map(([, row]) => row));
  };
  Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
    if (!column) return;
    const button = made("button", header.textContent);
    button.type = "button";
    button.addEventListener("click", () => sortBy(column, header));
    header.replaceChildren(button);
  });

  // --- filters
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const filter = () => {
    const words = find("words").value.toLowerCase().split(/\s+/).filter(Boolean), state = find("state").value;
    let shown = 0;
    for (const row of rows) {
      const fits = (!state || row.dataset.state === state) && words.every((word) => texts.get(row).includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    find("count").textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} runs`;
  };
  find("words").addEventListener("input", filter);
  find("state").addEventListener("change", filter);

  // --- beside each other
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const strokeOf = (place) => `line stroke${place % 6} dash${Math.floor(place / 6) % 3}`;
  const drawn = (name, attributes, parent) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (parent) parent.append(element);
    return element;
  };
  const ticksOf = (low, high) => {
    if (!(high > low)) [low, high] = [low - (Math.abs(low) / 2 || 1), high + (Math.abs(high) / 2 || 1)];
    const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw));
    const size = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= raw * (1 - 1e-9));
    const ticks = [];
    for (let i = Math.floor(low / size + 1e-9); i <= Math.ceil(high / size - 1e-9); i += 1) ticks.push(Number((i * size).toPrecision(10)));
    return ticks;
  };
  const drawCurves = (chosen) => {
    const curves = chosen.map((run, place) => [place, told.curves[run]]).filter(([, curve]) => curve[0].length);
    const figure = find("curves");
    if (!curves.length) return figure.replaceChildren(made("p", "None of these runs has a loss yet.", "soft"));
    const epochs = curves.flatMap(([, curve]) => curve[0]).filter((epoch) => epoch > 0), losses = curves.flatMap(([, curve]) => curve[1]);
    const [left, right, top, bottom] = [70, 740, 10, 270];
    const first = Math.log10(Math.min(...epochs)), last = Math.max(Math.log10(Math.max(...epochs)), first + 0.01);
    const yTicks = ticksOf(Math.min(...losses), Math.max(...losses)), low = yTicks[0], high = yTicks[yTicks.length - 1];
    const x = (epoch) => left + ((Math.log10(epoch) - first) / (last - first)) * (right - left);
    const y = (loss) => bottom - ((loss - low) / (high - low)) * (bottom - top);
    const svg = drawn("svg", { viewBox: "0 0 760 320", role: "img", "aria-label": "Loss over epochs, of each run" });
    for (const tick of yTicks) {
      drawn("path", { class: "grid", d: `M${left},${y(tick).toFixed(1)}H${right}` }, svg);
      drawn("text", { x: left - 8, y: (y(tick) + 4).toFixed(1), "text-anchor": "end" }, svg).textContent = String(tick);
    }
    drawn("path", { class: "axis", d: `M${left},${bottom}H${right}` }, svg);
    for (let power = Math.ceil(first - 1e-9); power <= last + 1e-9; power += 1) {
      drawn("path", { class: "axis", d: `M${x(10 ** power).toFixed(1)},${bottom}v4` }, svg);
      drawn("text", { x: x(10 ** power).toFixed(1), y: bottom + 18, "text-anchor": "middle" }, svg).textContent = (10 ** power).toLocaleString("en");
    }
    drawn("text", { x: (left + right) / 2, y: bottom + 40, "text-anchor": "middle" }, svg).textContent = "epochs seen";
    drawn("text", { transform: `translate(14 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, svg).textContent = "loss";
    for (const [place, [steps, values]] of curves) {
      const points = steps.map((step, i) => [step, values[i]]).filter(([step]) => step > 0);
      const dot = points.length === 1 ? "h6" : "";
      const path = points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join("L");
      drawn("path", { class: strokeOf(place), "data-run": letters[place], d: `M${path}${dot}` }, svg);
    }
    const caption = made("figcaption", "Points are means of some steps each, spread evenly over the run.", "soft");
    return figure.replaceChildren(svg, caption);
  };
  const showFacts = (chosen) => {
    const differ = told.facts.filter((fact) => new Set(chosen.map((run) => fact.of[run])).size > 1);
    const facts = find("facts"), alike = told.same + told.facts.length - differ.length;
    const said = made("p", `${differ.length ? "" : "Settings, data and code are the same. "}${alike} settings and facts are the same and not shown.`, "soft");
    if (!differ.length) return facts.replaceChildren(said);
    const shown = made("table"), head = shown.createTHead().insertRow(), lines = shown.createTBody();
    shown.createCaption().textContent = "What differs";
    for (const text of ["setting", ...chosen.map((_, place) => letters[place])]) head.append(made("th", text));
    for (const fact of differ) {
      const line = lines.insertRow(), name = made("th", fact.name);
      name.scope = "row";
      line.append(name, ...chosen.map((run) => made("td", fact.values[fact.of[run]])));
    }
    return facts.replaceChildren(shown, said);
  };
  const compare = () => {
    const ticked = rows.map((row) => row.cells[0].firstElementChild).filter((box) => box.checked);
    const chosen = ticked.slice(0, letters.length).map((box) => Number(box.value));
    find("clear").hidden = !ticked.length;
    find("beside").hidden = chosen.length < 2;
    if (chosen.length < 2) return;
    find("legend").replaceChildren(...chosen.map((run, place) => {
      const item = made("li"), key = drawn("svg", { viewBox: "0 0 32 10", "aria-hidden": "true" });
      drawn("path", { class: strokeOf(place), d: "M0,5H32" }, key);
      item.append(key, `${letters[place]}: ${told.runs[run]}`);
      return item;
    }));
    if (ticked.length > letters.length) find("legend").append(made("li", `and ${ticked.length - letters.length} more, which are not shown`));
    drawCurves(chosen);
    showFacts(chosen);
  };
  body.addEventListener("change", compare);
  find("clear").addEventListener("click", () => {
    for (const row of rows) row.cells[0].firstElementChild.checked = false;
    compare();
  });
  filter();
  compare();
})();
