let saved = true;
const save = (rows, name) => {
  const quoted = text => '"' + text.replaceAll('"', '""') + '"';
  const lines = rows.map(row => row.map(quoted).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], {type: "text/csv"}));
  link.download = name;
  link.click();
  saved = true;
};
