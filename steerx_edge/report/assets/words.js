// Words that can be pointed at, or reached by keyboard: Tab to a text, then arrow keys.
"use strict";

/** A new element with text, never markup, and children. */
function element(name, className, text, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function signed(value, digits = 2) {
  return (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
}

function plain(value) {
  return value.toFixed(2).replace("-", "−");
}

/** A token as a name: line feeds can be seen. */
function named(text) {
  return `‹${text.replaceAll("\n", "⏎")}›`;
}

/** One word of each group can be reached by Tab; `show` is called with the one pointed at. */
function navigate(root, show) {
  let current = null;

  function choose(word) {
    if (word === current) return;
    if (current) {
      current.classList.remove("chosen");
      current.removeAttribute("aria-describedby");
    }
    current = word;
    word.classList.add("chosen");
    word.setAttribute("aria-describedby", "details");
    show(word);
  }

  function focus(word) {
    if (!word) return;
    const group = word.closest(".words");
    for (const other of group.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    word.tabIndex = 0;
    word.focus();
  }

  function wordsOf(group) {
    return group ? [...group.querySelectorAll(".w")] : [];
  }

  function groups() {
    return [...root.querySelectorAll(".words")].filter((group) => !group.closest("[hidden]"));
  }

  const wordAt = (event) => event.target.closest(".w");
  for (const type of ["pointerover", "focusin", "click"]) {
    root.addEventListener(type, (event) => {
      const word = wordAt(event);
      if (word) choose(word);
    });
  }
  root.addEventListener("keydown", (event) => {
    const word = wordAt(event);
    if (!word || event.altKey || event.ctrlKey || event.metaKey) return;
    const group = word.closest(".words");
    const words = wordsOf(group);
    const at = words.indexOf(word);
    const beside = (step) => {
      const all = groups();
      return wordsOf(all[all.indexOf(group) + step]);
    };
    const targets = {
      ArrowRight: () => words[at + 1] || beside(1)[0],
      ArrowLeft: () => words[at - 1] || beside(-1).pop(),
      ArrowDown: () => beside(1)[0],
      ArrowUp: () => beside(-1)[0],
      Home: () => words[0],
      End: () => words[words.length - 1],
    };
    if (!(event.key in targets)) return;
    event.preventDefault();
    focus(targets[event.key]());
  });
}
