'use strict';

// What is shown, as names and strings: it stands in the address behind the #,
// so that a link leads to the same view. Defaults are left out, and stand for
// what an old or mistyped address can't mean.
const state = (() => {
  const defaults = {};
  const choices = {};
  const listeners = [];
  let values = {};

  function read() {
    values = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  }

  // A name with its default and, if they are few, the values it may take.
  function define(name, value, allowed) {
    defaults[name] = String(value);
    choices[name] = allowed?.map(String);
  }

  function get(name) {
    const value = values[name];
    const known = choices[name]?.includes(value) ?? true;
    return value !== undefined && known ? value : defaults[name];
  }

  function write() {
    const kept = Object.entries(values).filter(
      ([name, value]) => value !== defaults[name],
    );
    const hash = new URLSearchParams(kept).toString();
    // Without a history entry: typing a search would leave dozens.
    history.replaceState(null, '', hash ? `#${hash}` : '#');
  }

  function notify(names) {
    for (const [wanted, call] of listeners) {
      if (names.some((name) => wanted.includes(name))) call();
    }
  }

  function set(changes) {
    const changed = Object.keys(changes).filter(
      (name) => String(changes[name]) !== get(name),
    );
    for (const name of changed) values[name] = String(changes[name]);
    write();
    notify(changed);
  }

  // Calls back when one of the names changes.
  function on(names, call) {
    listeners.push([names, call]);
  }

  read();
  addEventListener('hashchange', () => {
    read();
    notify(Object.keys(defaults));
  });
  return {define, get, set, on};
})();
