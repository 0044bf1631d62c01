'use strict';

// Every setting with every metric; a click on a header sorts.
(() => {
  const {data, html} = dom;
  const sweep = data.kind === 'sweep';
  // Of a run, its three systems; of a sweep, references stay below.
  const rows = sweep ? data.settings : [...data.references, ...data.settings];
  if (!sweep && !data.metrics.length) return;
  const home = dom.byId('table');
  home.hidden = false;

  const axes = data.axes.map((axis) => ({
    key: `axis.${axis.name}`,
    label: axis.name,
    number: axis.values.every((each) => typeof each === 'number'),
    of: (row) => row.values?.[axis.name],
  }));
  const metrics = data.metrics.map((metric) => ({
    key: `metric.${metric.name}`,
    label: metric.name,
    metric,
    number: true,
    interval: (row) => row.metrics[metric.name],
    of: (row) => row.metrics[metric.name]?.[0] ?? undefined,
  }));
  // How far the best score lies above the undistilled student's, paired.
  const primary = dom.metric(data.primary);
  const gains = data.settings.some((row) => row.gain?.[0] != null)
    ? [
        {
          key: 'gain',
          label: `gain in ${data.primary}`,
          metric: primary,
          number: true,
          signed: true,
          interval: (row) => row.gain,
          of: (row) => row.gain?.[0] ?? undefined,
        },
      ]
    : [];
  const done = (row) => row.runs?.filter((run) => run.state === 'done').length;
  const seeds = {key: 'seeds', label: 'seeds', number: true, of: done};
  const columns = [
    ...(axes.length
      ? axes
      : [{key: 'name', label: 'system', of: (row) => row.id}]),
    ...(sweep ? [seeds] : []),
    ...metrics.slice(0, 1),
    ...gains,
    ...metrics.slice(1),
  ];
  state.define(
    'table',
    sweep && primary
      ? `metric.${primary.name}.${primary.lower ? 'asc' : 'desc'}`
      : '',
  );

  function order() {
    const [, key, direction] = /^(.*)\.(asc|desc)$/.exec(
      state.get('table'),
    ) ?? [null, '', 'asc'];
    return {
      column: columns.find((each) => each.key === key),
      down: direction === 'desc',
    };
  }

  // Numbers by size, words by the alphabet, what is missing last.
  function compare(a, b, down) {
    if (a === undefined || b === undefined) {
      return (a === undefined) - (b === undefined);
    }
    const both = typeof a === 'number' && typeof b === 'number';
    const found = both ? a - b : String(a).localeCompare(String(b));
    return down ? -found : found;
  }

  // The best value of each metric stands out.
  const best = Object.fromEntries(
    metrics
      .filter(({metric}) => metric.score)
      .map((column) => {
        const known = data.settings
          .map(column.of)
          .filter((each) => each !== undefined);
        const pick = column.metric.lower ? Math.min : Math.max;
        return [column.key, known.length > 1 ? pick(...known) : undefined];
      }),
  );

  function cell(column, row) {
    if (column.metric) {
      const interval = column.interval(row);
      if (interval?.[0] == null) return html('td', {class: 'number'}, '–');
      const top = interval[0] === best[column.key] && rows.includes(row);
      const {digits} = column.metric;
      const sign = column.signed && interval[0] > 0 ? '+' : '';
      return html(
        'td',
        {class: 'number'},
        html(
          top ? 'strong' : 'span',
          {},
          sign + dom.number(interval[0], digits),
        ),
        html('small', {}, dom.range(interval, digits)),
      );
    }
    const value = column.of(row);
    if (column.key === 'seeds') {
      return html('td', {class: 'number'}, row.runs ? status(row) : []);
    }
    return html(
      column === columns[0] ? 'th' : 'td',
      {
        scope: column === columns[0] ? 'row' : null,
        class: column.number ? 'number' : null,
      },
      value === undefined ? '–' : String(value),
    );
  }

  // '3', or '1 of 3', with the last lines of the runs that failed.
  function status(row) {
    const failed = row.runs.filter((run) => run.state === 'failed');
    const count = done(row);
    if (count === row.runs.length) return [String(count)];
    const open = row.runs.length - count - failed.length;
    const tails = failed.map((run) =>
      html('pre', {tabindex: '0'}, `seed ${run.seed}\n${run.tail}`),
    );
    const summary = html('summary', {}, `${failed.length} failed`);
    return [
      `${count} of ${row.runs.length}`,
      failed.length ? html('details', {class: 'open'}, summary, tails) : null,
      open ? html('small', {class: 'open'}, `${open} pending`) : null,
    ];
  }

  function line(row) {
    return html(
      'tr',
      {'data-setting': rows.includes(row) ? row.id : null},
      columns.map((column) => cell(column, row)),
    );
  }

  // Of a reference, its name over all axes.
  function referenceLine(row) {
    const rest = columns.slice(axes.length || 1);
    return html(
      'tr',
      {},
      html('th', {scope: 'row', colspan: axes.length || 1}, row.id),
      rest.map((column) => cell(column, row)),
    );
  }

  function header(column) {
    const {column: by, down} = order();
    const sorted = by === column ? (down ? 'descending' : 'ascending') : 'none';
    const more = column.metric && !column.metric.lower;
    const first = more ? 'desc' : 'asc';
    const next = by === column ? (down ? 'asc' : 'desc') : first;
    const note =
      column.metric?.lower && !column.signed
        ? html('small', {}, 'less is better')
        : null;
    return html(
      'th',
      {
        scope: 'col',
        'aria-sort': sorted,
        class: column.number ? 'number' : null,
      },
      html(
        'button',
        {
          type: 'button',
          'data-key': column.key,
          onclick: () => state.set({table: `${column.key}.${next}`}),
        },
        html('span', {class: 'arrow', 'aria-hidden': 'true'}),
        // Long names may break after each word.
        column.label
          .split(/(?<=_)/)
          .flatMap((part, i) => (i ? [html('wbr'), part] : [part])),
      ),
      note,
    );
  }

  function draw() {
    const {column, down} = order();
    const sorted = [...rows];
    if (column)
      sorted.sort((a, b) => compare(column.of(a), column.of(b), down));
    const focused =
      table.contains(document.activeElement) &&
      document.activeElement.dataset.key;
    table.replaceChildren(
      html('thead', {}, html('tr', {}, columns.map(header))),
      html('tbody', {}, sorted.map(line)),
      html(
        'tbody',
        {class: 'references'},
        sweep ? data.references.map(referenceLine) : [],
      ),
    );
    if (focused) table.querySelector(`[data-key="${focused}"]`).focus();
  }

  const table = html('table', {
    class: 'scores',
    'aria-labelledby': 'table-title',
    'aria-describedby': 'table-note',
  });
  home.append(
    html(
      'div',
      {
        class: 'scroll',
        tabindex: '0',
        role: 'region',
        'aria-labelledby': 'table-title',
      },
      table,
    ),
    html(
      'p',
      {class: 'note', id: 'table-note'},
      [
        data.over && `Test split, with 95% intervals over ${data.over}.`,
        gains.length && 'The gain is over the undistilled student, paired.',
      ]
        .filter(Boolean)
        .join(' '),
    ),
  );
  draw();
  state.on(['table'], draw);
})();
