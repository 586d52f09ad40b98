import { Component, type ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { Button } from '@/components/ui/button';

function Sorry() {
  const { t } = useTranslation();
  return (
    <main role="alert" className="grid h-full place-content-center justify-items-center gap-4 p-6">
      <h1 className="text-xl font-semibold">{t('somethingWrong')}</h1>
      <Button kind="primary" onClick={() => location.reload()}>{t('reload')}</Button>
    </main>
  );
}

export class ErrorBoundary extends Component<{ children: ReactNode }, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError() {
    return { failed: true };
  }

  override render() {
    return this.state.failed ? <Sorry /> : this.props.children;
  }
}
