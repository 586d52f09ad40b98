import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { lazy, Suspense, useEffect } from 'react';
import { session } from '@/auth/sessions';
import { Toasts } from '@/components/ui/toast';
import { ApiError } from '@/lib/http';
import { useStore } from '@/lib/use-store';
import { ErrorBoundary } from './error-boundary';
import { loadEntrance, loadHome } from './parts';

const Home = lazy(() => loadHome().then(({ Home }) => ({ default: Home })));
const Entrance = lazy(() => loadEntrance().then(({ Entrance }) => ({ default: Entrance })));

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      // Events keep it fresh; what they can't is invalidated by name.
      staleTime: Infinity,
      gcTime: 30 * 60_000,
      refetchOnWindowFocus: false,
      refetchOnReconnect: false,
      networkMode: 'always',
      retry: (count, error) => count < 3 && error instanceof ApiError && (error.code === 'network' || error.code === 'unavailable'),
      retryDelay: (count) => Math.min(1000 * 2 ** count, 5000) * (0.5 + Math.random()),
    },
    mutations: { networkMode: 'always' },
  },
});

export function App() {
  const held = useStore(session);
  const userId = held?.user.id;
  // Nothing of one user is ever shown to the next.
  useEffect(() => () => queries.clear(), [userId]);
  return (
    <ErrorBoundary>
      <QueryClientProvider client={queries}>
        <Suspense fallback={null}>
          {userId === undefined ? <Entrance /> : <Home key={userId} />}
        </Suspense>
        <Toasts />
      </QueryClientProvider>
    </ErrorBoundary>
  );
}
