// Draws every formula of a page with the KaTeX beside this file: no network, no fonts of the system.
document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll(".math[data-tex]")) {
    const displayMode = element.tagName === "DIV";
    katex.render(element.dataset.tex, element, { displayMode, throwOnError: false });
  }
});
