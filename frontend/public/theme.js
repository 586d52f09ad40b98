// Before the first paint: the theme that was chosen, or the system's.
(function () {
  var chosen = null;
  try { chosen = localStorage.getItem('starling.theme'); } catch (e) { /* storage is off */ }
  var dark = chosen === 'dark' || (chosen !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
})();
