'use strict';

// Two charts over one x axis: validation scores, and what training printed.
(() => {
  const {data, html} = dom;
  const kinds = [
    {
      key: 'validation',
      title: 'Validation',
      of: (name) => name.startsWith('eval/'),
    },
    {
      key: 'training',
      title: 'Training',
      of: (name) => !name.startsWith('eval/'),
    },
  ];
  const grids = data.settings.flatMap((each) => each.curves);
  if (!grids.length) return;
  const home = dom.byId('curves');
  home.hidden = false;

  const names = [...new Set(grids.flatMap((grid) => Object.keys(grid.y)))];
  const xs = [...new Set(grids.flatMap((grid) => Object.keys(grid.x)))];
  state.define('x', xs[0], xs);
  // Those of the best score first: it lies on top and has the accent.
  const primary = dom.metric(data.primary);
  const sign = primary?.lower ? 1 : -1;
  const rank = (each) =>
    sign * (each.metrics[data.primary]?.[0] ?? sign * Infinity);
  const ranked = [...data.settings].sort((a, b) => rank(a) - rank(b));

  function series(metric) {
    const x = state.get('x');
    return ranked.flatMap((setting) => {
      const grid = setting.curves.find((each) => metric in each.y && each.x[x]);
      if (!grid) return [];
      const {value, low, high} = grid.y[metric];
      return [
        {
          id: setting.id,
          label: setting.id,
          x: grid.x[x],
          y: value,
          low,
          high,
          kind: setting === ranked[0] ? 'best' : '',
        },
      ];
    });
  }

  // The teacher's validation score, once for all that share it.
  function rules(metric) {
    const name = metric.replace('eval/', '');
    const known = metric.startsWith('eval/')
      ? data.settings.map((each) => each.teacher[name])
      : [];
    return [...new Set(known.filter(Number.isFinite))].map((value) => ({
      label: 'teacher',
      value,
    }));
  }

  // The settings as buttons; of many, folded away.
  function legend() {
    const buttons = ranked.map(({id}) =>
      html('li', {}, html('button', {type: 'button', 'data-setting': id}, id)),
    );
    const list = html('ul', {'aria-label': 'Settings'}, buttons);
    const title = html('summary', {}, `${ranked.length} settings`);
    const open = ranked.length <= 12;
    return html('details', {class: 'legend', open}, title, list);
  }

  const bar = html('div', {class: 'bar'});
  const panels = html('div', {class: 'panels'});
  home.append(bar, panels);
  if (xs.length > 1) {
    bar.append(
      dom.select(
        'X axis',
        xs.map((each) => [each, each]),
        state.get('x'),
        (x) => state.set({x}),
      ),
    );
  }

  const charts = kinds
    .map((kind) => {
      const own = names.filter(kind.of);
      if (!own.length) return null;
      const first = own.includes(`eval/${data.primary}`)
        ? `eval/${data.primary}`
        : own.includes('loss')
          ? 'loss'
          : own[0];
      state.define(kind.key, first, own);
      const place = html('div', {class: 'chart'});
      panels.append(
        html(
          'figure',
          {},
          html(
            'figcaption',
            {class: 'bar'},
            dom.select(
              kind.title,
              own.map((each) => [each, each.replace('eval/', '')]),
              state.get(kind.key),
              (name) => state.set({[kind.key]: name}),
            ),
          ),
          place,
        ),
      );
      return () => {
        const metric = state.get(kind.key);
        chart.draw(place, series(metric), {
          label: state.get('x'),
          title: metric.replace('eval/', ''),
          rules: rules(metric),
        });
      };
    })
    .filter(Boolean);

  if (data.kind === 'sweep') {
    home.append(
      html(
        'p',
        {class: 'note'},
        'Means over seeds. Point at a curve or a setting to see it with the ' +
          'extremes of its seeds; the best setting of the test split is ' +
          'drawn in colour.',
      ),
      legend(),
    );
  } else {
    home.append(
      html(
        'p',
        {class: 'note'},
        'Validation split, with its bootstrap 95% interval.',
      ),
    );
  }
  const draw = () => charts.forEach((each) => each());
  draw();
  let width = panels.clientWidth;
  new ResizeObserver(() => {
    if (panels.clientWidth === width) return;
    width = panels.clientWidth;
    draw();
  }).observe(panels);
  state.on(['x', 'validation', 'training'], () => {
    for (const field of home.querySelectorAll('select')) {
      const name = {
        'X axis': 'x',
        Validation: 'validation',
        Training: 'training',
      }[field.getAttribute('aria-label')];
      field.value = state.get(name);
    }
    draw();
  });
})();
