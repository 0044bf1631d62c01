'use strict';

// The samples: everybody's response to the same prompt, side by side.
const browser = (() => {
  const {data, html} = dom;
  const home = dom.byId('samples');
  const PAGE = 10;
  const runs = data.settings.filter(
    (each) => data.sets[each.reference]?.responses[each.id],
  );
  if (!runs.length) {
    home.append(
      html(
        'p',
        {class: 'empty'},
        'There are no samples: no examples.jsonl of a run that is done.',
      ),
    );
    return null;
  }

  const primary = dom.metric(data.primary);
  const sign = primary?.lower ? -1 : 1;
  const rank = (each) =>
    sign * (each.metrics[data.primary]?.[0] ?? -sign * Infinity);
  const best = runs.reduce((a, b) => (rank(b) > rank(a) ? b : a));
  const setOf = (id) =>
    data.sets[runs.find((each) => each.id === id).reference];
  const scores = setOf(best.id).scores;
  const before = 'student before';
  const defaults = {
    run: best.id,
    against: setOf(best.id).responses[before] ? before : 'teacher',
    score: scores.includes(data.primary) ? data.primary : (scores[0] ?? ''),
    kl: 'forward_kl',
    filter: 'all',
    sort: 'id',
    order: 'up',
    search: '',
    from: '',
    to: '',
    page: '1',
  };
  const allowed = {
    run: runs.map((each) => each.id),
    score: scores,
    kl: Object.keys(tokens.NAMES),
    filter: examples.kinds,
    sort: examples.keys,
    order: ['up', 'down'],
  };
  for (const [name, value] of Object.entries(defaults)) {
    state.define(name, value, allowed[name]);
  }

  function view() {
    const found = Object.fromEntries(
      Object.keys(defaults).map((name) => [name, state.get(name)]),
    );
    found.lower = data.lower.includes(found.score);
    return found;
  }

  // Whoever's choice changes what is listed leads back to the first page.
  const change = (name) => (value) => state.set({[name]: value, page: 1});

  const words = (text) => [text, text.replaceAll('_', ' ')];
  const systems = (set) => Object.keys(set.responses);
  const search = html('input', {
    type: 'search',
    'aria-label': 'Search the texts',
    placeholder: 'Search (/)',
    'aria-keyshortcuts': '/',
    oninput: () => change('search')(search.value),
  });
  const bound = (name, label) =>
    html('input', {
      type: 'number',
      min: '0',
      'aria-label': label,
      oninput: (event) => change(name)(event.target.value),
    });
  const [from, to] = [
    bound('from', 'Fewest tokens'),
    bound('to', 'Most tokens'),
  ];

  function controls(now) {
    const set = setOf(now.run);
    const order = html(
      'button',
      {
        type: 'button',
        'data-focus': 'order',
        'aria-label': `Order: ${now.order === 'up' ? 'ascending' : 'descending'}`,
        onclick: () => change('order')(now.order === 'up' ? 'down' : 'up'),
      },
      now.order === 'up' ? '↑' : '↓',
    );
    const others = systems(set).filter((each) => each !== now.run);
    return [
      runs.length > 1
        ? dom.select(
            'Run',
            runs.map((each) => [each.id, each.id]),
            now.run,
            change('run'),
          )
        : null,
      dom.select(
        'Against',
        others.map((each) => [each, each]),
        now.against,
        change('against'),
      ),
      scores.length
        ? dom.select('By', scores.map(words), now.score, change('score'))
        : null,
      dom.select(
        'Show',
        examples.kinds.map(words),
        now.filter,
        change('filter'),
      ),
      html(
        'span',
        {class: 'field'},
        dom.select('Sort', examples.keys.map(words), now.sort, change('sort')),
        order,
      ),
      dom.select('Colour', Object.entries(tokens.NAMES), now.kl, change('kl')),
      html(
        'span',
        {class: 'field lengths'},
        html('span', {}, 'Tokens'),
        from,
        '–',
        to,
      ),
      search,
    ].filter(Boolean);
  }

  function pager(page, pages) {
    const button = (text, label, to, disabled) =>
      html(
        'button',
        {
          type: 'button',
          'data-focus': label,
          'aria-label': label,
          disabled,
          onclick: () => {
            state.set({page: to});
            home.scrollIntoView();
          },
        },
        text,
      );
    if (pages < 2) return [];
    return [
      button('←', 'Previous page', page - 1, page <= 1),
      html('span', {}, `${page} of ${pages}`),
      button('→', 'Next page', page + 1, page >= pages),
    ];
  }

  const bar = html('div', {
    class: 'bar',
    role: 'group',
    'aria-label': 'Choose samples',
  });
  const status = html('p', {class: 'note', role: 'status'});
  const list = html('div', {id: 'examples'});
  const pages = html('nav', {class: 'pager', 'aria-label': 'Pages of samples'});
  home.append(
    bar,
    html('div', {class: 'bar quiet'}, tokens.legend(), status),
    list,
    pages,
  );
  tokens.listen(home);
  let page = 1;

  // Redrawing keeps the focus where it was.
  function keepFocus(draw) {
    const active = document.activeElement;
    const inside = home.contains(active) && active !== home;
    const name = ['data-focus', 'aria-label'].find(
      (each) => inside && active.hasAttribute(each),
    );
    const value = name && CSS.escape(active.getAttribute(name));
    draw();
    if (name && document.activeElement !== active) {
      home.querySelector(`[${name}="${value}"]`)?.focus();
    }
  }

  function count(found, set) {
    const embedded = set.examples.length;
    const all =
      embedded < set.total
        ? `the first ${embedded.toLocaleString('en')} of ` +
          `${set.total.toLocaleString('en')} in this page`
        : `${embedded.toLocaleString('en')} in all`;
    return (
      `${found.length.toLocaleString('en')} found; ${all}. Shades: how far ` +
      'the student is from the teacher at each token.' +
      (data.kind === 'sweep' ? ' One seed of each setting.' : '')
    );
  }

  function draw() {
    const now = view();
    const set = setOf(now.run);
    if (!set.responses[now.against] || now.against === now.run) {
      now.against = systems(set).find((each) => each !== now.run) ?? '';
    }
    const found = examples.select(set, now);
    const last = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(1, Number(now.page) || 1), last);
    keepFocus(() => {
      bar.replaceChildren(...controls(now));
      for (const [input, value] of [
        [search, now.search],
        [from, now.from],
        [to, now.to],
      ]) {
        if (input.value !== value) input.value = value;
      }
      status.textContent = count(found, set);
      list.replaceChildren(
        ...found
          .slice((page - 1) * PAGE, page * PAGE)
          .map((row) => article.render(row, now, set)),
      );
      pages.replaceChildren(...pager(page, last));
    });
  }

  // Moves to another example, over the ends of pages too.
  function move(by) {
    const all = [...list.children];
    const now = all.indexOf(document.activeElement?.closest('.example'));
    const next = now + by;
    if (all[next]) return all[next].focus();
    if (now < 0 || page + by < 1) return undefined;
    state.set({page: page + by});
    return list.children[by > 0 ? 0 : list.children.length - 1]?.focus();
  }

  draw();
  state.on(Object.keys(defaults), draw);
  return {move, search};
})();
