'use strict';

// Title and config: what the other parts leave.
(() => {
  const {data, html} = dom;
  document.title = `${data.title} – kdjax`;
  dom.byId('title').textContent = data.title;
  if (data.config) {
    const home = dom.byId('config');
    home.hidden = false;
    home.append(
      html(
        'details',
        {},
        html('summary', {}, 'The whole config'),
        html('pre', {tabindex: '0'}, JSON.stringify(data.config, null, 2)),
      ),
    );
  }
})();
