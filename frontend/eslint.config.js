import js from '@eslint/js';
import hooks from 'eslint-plugin-react-hooks';
import globals from 'globals';
import ts from 'typescript-eslint';

/** Imports flow from what is shared to the features to the app. */
const layers = (folder, forbidden) => ({
  files: [`src/${folder}/**`],
  rules: { 'no-restricted-imports': ['error', { patterns: forbidden.map((one) => ({ group: [`@/${one}/**`], message: 'Imports flow the other way.' })) }] },
});

export default ts.config(
  { ignores: ['dist/', 'node_modules/', 'e2e/artefacts/', 'src/protocol.ts'] },
  js.configs.recommended,
  ...ts.configs.recommendedTypeChecked.map((config) => ({ ...config, files: ['src/**/*.{ts,tsx}'] })),
  {
    files: ['src/**/*.{ts,tsx}'],
    languageOptions: { parserOptions: { project: './tsconfig.json', tsconfigRootDir: import.meta.dirname } },
    plugins: { 'react-hooks': hooks },
    rules: {
      eqeqeq: 'error',
      'no-implied-eval': 'error',
      'react-hooks/rules-of-hooks': 'error',
      'no-restricted-properties': ['error', { property: 'innerHTML' }, { property: 'outerHTML' }, { property: 'insertAdjacentHTML' }],
      'no-restricted-syntax': ['error', { selector: 'JSXAttribute[name.name="dangerouslySetInnerHTML"]', message: 'Content is shown as text.' }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // Callbacks of props are written as methods.
      '@typescript-eslint/unbound-method': 'off',
    },
  },
  layers('lib', ['features', 'components', 'app', 'realtime']),
  layers('realtime', ['features', 'components', 'app']),
  layers('components', ['features', 'app', 'realtime']),
  layers('features', ['app']),
  { files: ['e2e/**/*.mjs', 'scripts/*.mjs', '*.js'], languageOptions: { globals: { ...globals.node, ...globals.browser } } },
  { files: ['public/*.js'], languageOptions: { globals: globals.browser, sourceType: 'script' }, rules: { 'no-unused-vars': ['error', { caughtErrors: 'none' }] } },
);
