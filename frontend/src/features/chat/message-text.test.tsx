import { render, screen } from '@testing-library/react';
import { expect, test } from 'vitest';
import { MessageText } from './message-text';

test('markup is shown, never run', () => {
  const { container } = render(<MessageText text={'<b onclick="x()">bold</b> & <script>alert(1)</script>'} />);
  expect(container.querySelector('b, script')).toBeNull();
  expect(container.textContent).toBe('<b onclick="x()">bold</b> & <script>alert(1)</script>');
});

test('a link opens elsewhere and tells nothing of where it was', () => {
  render(<MessageText text="look: https://example.com" />);
  const link = screen.getByRole('link');
  expect(link.getAttribute('target')).toBe('_blank');
  expect(link.getAttribute('rel')).toContain('noopener');
});
