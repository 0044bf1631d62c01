'use strict';

// Light, dark, or what the system says. Remembered where pages may remember.
(() => {
  const button = dom.byId('theme');
  const themes = ['auto', 'light', 'dark'];
  const key = 'kdjax-theme';

  function stored() {
    try {
      return localStorage.getItem(key);
    } catch {
      return null; // Some browsers keep nothing for pages from files.
    }
  }

  function apply(theme) {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    try {
      localStorage.setItem(key, theme);
    } catch {
      // As above.
    }
  }

  button.addEventListener('click', () => {
    const now = themes.indexOf(document.documentElement.dataset.theme);
    apply(themes[(now + 1) % themes.length]);
  });
  apply(themes.includes(stored()) ? stored() : 'auto');
})();
