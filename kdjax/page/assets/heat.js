'use strict';

// Two axes against each other, as a table whose cells are shaded by the score.
(() => {
  const {data, html} = dom;
  const axes = data.axes.filter((axis) => axis.values.length > 1);
  const metrics = data.metrics.filter((each) => each.score);
  if (axes.length < 2 || !metrics.length) return;
  const home = dom.byId('heat');
  home.hidden = false;

  // Numbers in order; words as the sweep has them.
  const numeric = (axis) =>
    axis.values.every((each) => typeof each === 'number');
  const ordered = (axis) =>
    numeric(axis) ? [...axis.values].sort((a, b) => a - b) : axis.values;
  const preferred = [...axes].sort((a, b) => numeric(b) - numeric(a));
  const names = axes.map((each) => each.name);
  state.define(
    'map',
    data.primary,
    metrics.map((each) => each.name),
  );
  state.define('across', preferred[0].name, names);
  state.define('down', preferred[1].name, names);
  // What isn't drawn is held where most settings have been run.
  for (const {name, values} of axes) {
    const count = (value) =>
      data.settings.filter((each) => each.values[name] === value).length;
    const most = values.reduce((a, b) => (count(b) > count(a) ? b : a));
    state.define(`at.${name}`, most, values);
  }

  // The same axis twice would be a diagonal: an address may say so.
  function axis(key) {
    const across = axes.find((each) => each.name === state.get('across'));
    if (key === 'across') return across;
    const down = axes.find((each) => each.name === state.get('down'));
    return down === across ? axes.find((each) => each !== across) : down;
  }

  function choose(key, other) {
    const text = {across: 'Across', down: 'Down'}[key];
    const now = axis(key).name;
    return dom.select(
      text,
      names.map((each) => [each, each]),
      now,
      (name) => {
        const swap = name === axis(other).name ? {[other]: now} : {};
        state.set({[key]: name, ...swap});
      },
    );
  }

  // The axes that aren't drawn are held at a value each.
  const held = () =>
    axes.filter((each) => each !== axis('across') && each !== axis('down'));

  function find(x, y) {
    const wanted = {[axis('across').name]: x, [axis('down').name]: y};
    return data.settings.find(
      (each) =>
        Object.entries(wanted).every(
          ([name, value]) => each.values[name] === value,
        ) &&
        held().every(
          ({name}) => String(each.values[name]) === state.get(`at.${name}`),
        ),
    );
  }

  function draw() {
    const metric = metrics.find((each) => each.name === state.get('map'));
    const [across, down] = [axis('across'), axis('down')];
    const grid = ordered(down).map((y) =>
      ordered(across).map((x) => find(x, y)),
    );
    const value = (each) => each?.metrics[metric.name]?.[0];
    const [low, high] = scale.extent(grid.flat().map(value));
    const share = (each) =>
      (metric.lower ? high - value(each) : value(each) - low) / (high - low);

    function cell(each) {
      if (value(each) == null) {
        const why = !each
          ? 'not run'
          : each.runs.some((run) => run.state === 'failed')
            ? 'failed'
            : 'pending';
        return html('td', {class: 'empty'}, why);
      }
      const td = html(
        'td',
        {'data-setting': each.id, tabindex: '0'},
        html('strong', {}, dom.number(value(each), metric.digits)),
        html('small', {}, dom.range(each.metrics[metric.name], metric.digits)),
      );
      td.style.setProperty('--share', `${(100 * share(each)).toFixed(0)}%`);
      return td;
    }

    bar.replaceChildren(
      dom.select(
        'Score',
        metrics.map((each) => [each.name, each.name]),
        state.get('map'),
        (name) => state.set({map: name}),
      ),
      choose('across', 'down'),
      choose('down', 'across'),
      ...held().map(({name, values}) =>
        dom.select(
          `${name} at`,
          values.map((each) => [each, String(each)]),
          state.get(`at.${name}`),
          (each) => state.set({[`at.${name}`]: each}),
        ),
      ),
    );
    table.replaceChildren(
      html('caption', {}, `${metric.name}; the fuller the colour, the better`),
      html(
        'thead',
        {},
        html(
          'tr',
          {},
          html('td', {class: 'corner'}, `${down.name} ↓  ${across.name} →`),
          ordered(across).map((x) => html('th', {scope: 'col'}, String(x))),
        ),
      ),
      html(
        'tbody',
        {},
        ordered(down).map((y, i) =>
          html(
            'tr',
            {},
            html('th', {scope: 'row'}, String(y)),
            grid[i].map(cell),
          ),
        ),
      ),
    );
  }

  const bar = html('div', {class: 'bar'});
  const table = html('table', {class: 'heat'});
  home.append(
    bar,
    html(
      'div',
      {
        class: 'scroll',
        tabindex: '0',
        role: 'region',
        'aria-labelledby': 'heat-title',
      },
      table,
    ),
  );
  draw();
  state.on(
    ['map', 'across', 'down', ...names.map((name) => `at.${name}`)],
    () => {
      const label = document.activeElement.getAttribute?.('aria-label');
      const inside = bar.contains(document.activeElement);
      draw();
      if (inside)
        bar.querySelector(`[aria-label="${CSS.escape(label)}"]`)?.focus();
    },
  );
})();
