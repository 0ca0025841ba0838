// The heat map: texts as they are in the data block, sorted, filtered and searched.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("texts");
  const details = document.getElementById("details");
  const search = document.getElementById("search");
  const filter = document.getElementById("filter");
  const sort = document.getElementById("sort");
  const steps = [0.25, 0.5, 1, 2, 4];
  const known = new Map(Object.entries(data.words));
  const wordOf = new WeakMap(); // span -> its word

  const sum = (word, column) => word[2].reduce((total, token) => total + token[column], 0);

  function shade(effect) {
    const step = steps.filter((least) => Math.abs(effect) >= least).length;
    return step ? (effect > 0 ? "p" : "n") + step : "";
  }

  function strongest(words) {
    const named = words.filter((word) => word[1]).map((word) => [word[1], sum(word, 2)]);
    named.sort((one, other) => other[1] - one[1]);
    return named.slice(0, 5).filter((each) => each[1] >= 1);
  }

  function build(text) {
    const words = element("p", "words");
    words.setAttribute("role", "group");
    words.setAttribute("aria-label", `Words of text ${text.number}`);
    for (const word of text.words) {
      const bare = word[0].trimStart();
      words.append(word[0].slice(0, word[0].length - bare.length));
      if (!word[1]) {
        words.append(bare);
        continue;
      }
      const span = element("span", `w ${shade(sum(word, 2))}`, bare);
      span.tabIndex = -1;
      wordOf.set(span, word);
      words.append(span);
    }
    const first = words.querySelector(".w");
    if (first) first.tabIndex = 0;
    const top = strongest(text.words).map(([word, nats]) => `${word} ${signed(nats, 1)}`);
    const article = element("article", "", "", element("h2", "", `Text ${text.number}`),
      element("p", "about", text.about));
    if (top.length) {
      article.append(element("p", "said", `Words with the highest effects: ${top.join(", ")}.`));
    }
    if (text.request) article.append(element("p", "request", `Request: ${text.request}`));
    article.append(words);
    const whole = text.words.map((word) => word[0]).join("");
    return { text, article, searched: `${text.request}\n${whole}`.toLowerCase() };
  }

  const built = data.texts.map(build);

  const orders = {
    latest: (one, other) => other.text.number - one.text.number,
    earliest: (one, other) => one.text.number - other.text.number,
    effect: (one, other) => other.text.effect - one.text.effect,
    gain: (one, other) => (other.text.gain ?? -Infinity) - (one.text.gain ?? -Infinity) || 0,
  };
  const filters = {
    all: () => true,
    read: (text) => text.read === true,
    unread: (text) => text.read !== true,
    out: (text) => text.out,
    worse: (text) => text.gain !== null && text.gain < 0,
  };

  function arrange() {
    const compare = orders[sort.value];
    built.sort((one, other) => compare(one, other) || orders.earliest(one, other));
    list.append(...built.map((each) => each.article));
  }

  function choose() {
    const sought = search.value.trim().toLowerCase();
    let n = 0;
    for (const each of built) {
      const fits = filters[filter.value](each.text) && each.searched.includes(sought);
      each.article.hidden = !fits;
      if (fits) n += 1;
      if (!fits && !each.hits) continue;
      each.hits = Boolean(sought);
      for (const span of each.article.querySelectorAll(".w")) {
        const hit = sought !== "" && wordOf.get(span)[0].toLowerCase().includes(sought);
        span.classList.toggle("hit", hit);
      }
    }
    document.getElementById("shown").textContent = `${n} of ${built.length} texts`;
  }

  function row(...cells) {
    return element("tr", "", "", ...cells.map((cell, i) => element(i ? "td" : "th", "", cell)));
  }

  function table(word) {
    const head = element("thead", "", "",
      row("", "alone", "with your texts", "effect"));
    const body = element("tbody");
    const add = (name, control, effect) => body.append(
      row(name, plain(control), plain(control + effect), signed(effect)));
    add(word[2].length > 1 ? "word" : "log p", sum(word, 1), sum(word, 2));
    if (word[2].length > 1) for (const token of word[2]) add(named(token[0]), token[1], token[2]);
    return element("table", "", "", head, body);
  }

  function memory(word) {
    return [...new Set(word[2].map((token) => {
      const said = data.said[token[3]];
      const weighs = token[4] > 0 ? `, weight ${token[4].toFixed(2)} (level ${data.level})` : "";
      const name = word[2].length > 1 ? `${named(token[0])} ` : "";
      return `${name}${said}${weighs}.`;
    }))].map((line) => line[0].toUpperCase() + line.slice(1));
  }

  function profile(word) {
    const figures = known.get(word[1]);
    if (!figures) return "Not one of the profile's words.";
    const [effect, low, high, count, items] = figures;
    return `In the profile: ${signed(effect)} nats a text, 95% interval ${signed(low)} to ` +
      `${signed(high)}; ${count} times in ${items} ${items === 1 ? "text" : "texts"}.`;
  }

  navigate(list, (span) => {
    const word = wordOf.get(span);
    details.replaceChildren(
      element("h2", "", word[1]),
      element("p", "effect", `Effect ${signed(sum(word, 2))} nats.`),
      table(word),
      element("p", "", profile(word)),
      ...memory(word).map((line) => element("p", "", line)),
    );
  });
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", choose);
  filter.addEventListener("change", choose);
  sort.addEventListener("change", arrange);
  arrange();
  choose();
})();
