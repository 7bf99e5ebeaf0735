document.querySelectorAll("table.sortable thead th:not(.graphic)").forEach(function (head) {
  var column = head.cellIndex, isText = head.classList.contains("text"), button = document.createElement("button");
  button.type = "button";
  while (head.firstChild) button.appendChild(head.firstChild);
  head.appendChild(button);
  button.addEventListener("click", function () {
    var table = head.closest("table"), body = table.tBodies[0], sorted = head.getAttribute("aria-sort");
    var down = isText ? sorted === "ascending" : sorted !== "descending";
    var rows = Array.from(body.rows).map(function (row) {
      var text = row.cells[column].textContent.trim(), number = parseFloat(text);
      return { row: row, key: isText ? text : number, missing: isText ? !text : isNaN(number) };
    });
    rows.sort(function (a, b) {
      if (a.missing || b.missing) return a.missing - b.missing;
      var order = isText ? a.key.localeCompare(b.key, "en", { numeric: true }) : a.key - b.key;
      return down ? -order : order;
    });
    table.querySelectorAll("th[aria-sort]").forEach(function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.forEach(function (item) { body.appendChild(item.row); });
  });
});
