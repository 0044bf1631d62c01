'use strict';

// Builds elements. Text goes in as text nodes alone, never as markup.
const dom = (() => {
  function maker(create) {
    return (tag, attributes = {}, ...children) => {
      const element = create(tag);
      for (const [name, value] of Object.entries(attributes)) {
        if (value === undefined || value === null || value === false) continue;
        if (name.startsWith('on')) {
          element.addEventListener(name.slice(2), value);
        } else {
          element.setAttribute(name, value === true ? '' : value);
        }
      }
      element.append(...children.flat().filter((each) => each !== null));
      return element;
    };
  }

  const html = maker((tag) => document.createElement(tag));
  const svg = maker((tag) =>
    document.createElementNS('http://www.w3.org/2000/svg', tag),
  );

  const byId = (id) => document.getElementById(id);

  // A select with its label; `options` are [value, text] pairs.
  function select(label, options, value, change) {
    const control = html(
      'select',
      {
        'aria-label': label,
        onchange: () => change(control.value),
      },
      options.map(([key, text]) =>
        html(
          'option',
          {value: key, selected: String(key) === String(value)},
          text,
        ),
      ),
    );
    return html('label', {class: 'field'}, html('span', {}, label), control);
  }

  // 21.4 and [21.4, 20.9, 21.8], with the digits of their metric.
  const number = (value, digits) =>
    value === null || value === undefined ? '–' : value.toFixed(digits);

  function range(interval, digits) {
    const [, low, high] = interval;
    if (low === null || high === null) return '';
    return `[${number(low, digits)}, ${number(high, digits)}]`;
  }

  // The data of the page.
  const data = JSON.parse(byId('data').textContent);
  const metric = (name) => data.metrics.find((each) => each.name === name);

  return {html, svg, byId, select, number, range, data, metric};
})();
