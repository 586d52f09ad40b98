//! The newest page of a room by way of a cache, and how it is kept right.
//!
//! The database is asked in any case, whether the caller is in the room and where the room stands:
//! its newest message and its `version`, a random word that the database
//! changes with every change of a message or reaction of the room, whoever makes it. A
//! cached page counts only if it stands at the same point. So nothing that happens to the
//! cache, and nobody who writes past it, can make an old page visible.
//!
//! Receipts are each caller's own and never cached.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use starling_protocol::http::HistoryPage;
use starling_protocol::{RoomId, UserId};
use starling_repository::{Page, Repository, Result};

use crate::messages::for_room;
use crate::ports::{CACHED_MESSAGES, CachedPage, RoomCache};

/// Pages that are being checked before they go into the cache: a rush to many rooms
/// must not double the load of the database.
const KEEPING: usize = 8;

pub(crate) struct Cache {
    store: Arc<dyn RoomCache>,
    keeping: Arc<Mutex<HashSet<RoomId>>>,
}

impl Cache {
    pub(crate) fn new(store: Arc<dyn RoomCache>) -> Self {
        Self { store, keeping: Arc::default() }
    }

    pub(crate) fn changed(&self, room: RoomId) {
        self.store.changed(room);
    }

    /// As [`Repository::history`] of the newest page.
    pub(crate) async fn newest_page(
        &self,
        repository: &Repository,
        user: UserId,
        room: RoomId,
        limit: i64,
    ) -> Result<Option<HistoryPage>> {
        let wanted = usize::try_from(limit).unwrap_or(CACHED_MESSAGES);
        let (head, cached) =
            tokio::join!(repository.room_head(user, room), self.store.newest(room, wanted));
        let Some(head) = head? else { return Ok(None) };
        let hit = cached.filter(|page| page.is_at(&head));
        let result = if hit.is_some() { "hit" } else { "miss" };
        metrics::counter!("starling_room_cache_total", "result" => result).increment(1);
        if let Some(CachedPage { mut messages, .. }) = hit {
            repository.add_receipts(user, &mut messages).await?;
            let next_before = messages.first().map(|first| first.seq).filter(|seq| *seq > 1);
            let next_after =
                messages.last().map(|last| last.seq).filter(|seq| *seq < head.last_seq);
            return Ok(Some(HistoryPage { messages, next_before, next_after }));
        }
        let page = repository.history(user, room, Page::Newest, limit).await?;
        if let Some(page) = &page {
            self.keep(repository, user, room, head.version, page);
        }
        Ok(page)
    }

    /// Keeps a page that was read after the room had this version, if the room still
    /// has it: then the page belongs to it, since no version comes twice.
    fn keep(
        &self,
        repository: &Repository,
        user: UserId,
        room: RoomId,
        version: uuid::Uuid,
        page: &HistoryPage,
    ) {
        let whole = page.next_before.is_none() || page.messages.len() >= CACHED_MESSAGES;
        if page.messages.is_empty() || !whole {
            return;
        }
        {
            let mut keeping = self.keeping.lock();
            if keeping.len() >= KEEPING || !keeping.insert(room) {
                return;
            }
        }
        let messages = page.messages.iter().cloned().map(for_room).collect();
        let page = CachedPage { version, messages };
        let (store, keeping) = (self.store.clone(), self.keeping.clone());
        let repository = repository.clone();
        // Nobody waits for this.
        tokio::spawn(async move {
            let head = repository.room_head(user, room).await;
            if let Ok(Some(head)) = head
                && page.is_at(&head)
            {
                store.keep(room, page);
            }
            keeping.lock().remove(&room);
        });
    }
}
