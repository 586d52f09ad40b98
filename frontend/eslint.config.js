import js from '@eslint/js';
import globals from 'globals';

export default [
  { ignores: ['**/*.min.js', 'node_modules/'] },
  js.configs.recommended,
  {
    files: ['demo/*.js'],
    languageOptions: { ecmaVersion: 2022, sourceType: 'module', globals: globals.browser },
    rules: { eqeqeq: 'error', 'prefer-const': 'error', 'no-implied-eval': 'error',
      'no-restricted-properties': ['error', { property: 'innerHTML' }, { property: 'outerHTML' }, { property: 'insertAdjacentHTML' }] },
  },
];
