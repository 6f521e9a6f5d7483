// Tables sort by a click on a heading: ascending, descending, as it was. Without this script they stay as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], original = [...body.rows], headings = [...table.tHead.rows[0].cells];
  const value = (row, i) => {
    const data = row.cells[i].querySelector("data"), text = data ? data.value : row.cells[i].textContent.trim();
    return text === "" || text === "-" ? null : isNaN(text) ? text : Number(text);
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  const sort = (i) => {
    const next = { none: "ascending", ascending: "descending", descending: "none" }[headings[i].ariaSort || "none"];
    headings.forEach((heading, j) => { heading.ariaSort = j === i ? next : "none"; });
    const sign = next === "descending" ? -1 : 1;
    const rows = next === "none" ? original : [...original].sort((a, b) => {
      const x = value(a, i), y = value(b, i);
      return x === null || y === null ? (x === null) - (y === null) : sign * compare(x, y);  // what does not exist goes last
    });
    body.append(...rows);
  };
  headings.forEach((heading, i) => {
    heading.tabIndex = 0;
    heading.ariaSort = "none";
    heading.addEventListener("click", () => sort(i));
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(i); }
    });
  });
}
