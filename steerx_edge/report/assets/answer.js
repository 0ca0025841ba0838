// Details of a token of the answer: what each part adds, and where the memory has it from.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const details = document.getElementById("details");
  const spans = [...document.querySelectorAll(".words .w")];
  const places = new Map(spans.map((span, at) => [span, at]));

  function row(name, cell) {
    return element("tr", "", "", element("th", "", name), element("td", "", cell));
  }

  function table(token) {
    const rows = token.steps.map(([part, nats], i) =>
      row(data.names[part], i ? signed(nats) : plain(nats)));
    rows.push(row("log p", plain(token.sum)));
    return element("table", "", "", element("tbody", "", "", ...rows));
  }

  function source(each) {
    const share = `${Math.round(100 * each.share)} % `;
    if (!each.texts.length) {
      const where = data.hasSources ? "of a text that is not in the history"
        : "of a text; give --history to see which";
      return [element("li", "", share + where)];
    }
    return each.texts.map(([number, before, token, after]) =>
      element("li", "", `${share}text ${number}: `,
        element("span", "quoted", before), element("mark", "", token.replaceAll("\n", "⏎")),
        element("span", "quoted", after)));
  }

  navigate(document.querySelector(".answers"), (span) => {
    const token = data.tokens[places.get(span)];
    details.replaceChildren(
      element("h2", "", token.text === "‹end›" ? token.text : named(token.text)),
      element("p", "effect", `Comes from: ${data.names[token.origin]}.`),
      table(token),
    );
    if (token.sources.length) {
      details.append(element("p", "", "The memory offers it from:"),
        element("ul", "", "", ...token.sources.flatMap(source)));
    }
  });
})();
