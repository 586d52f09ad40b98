//! Lengths and sizes of the contract. A character is a Unicode scalar value.

/// Characters of a message's `content`, at least 1.
pub const CONTENT_CHARS: usize = 4000;
/// Bytes of a message's `metadata`, as compact JSON.
pub const METADATA_BYTES: usize = 4096;
/// Characters of a `username`.
pub const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 3..=32;
/// Characters of a password, at least.
pub const PASSWORD_MIN_CHARS: usize = 8;
/// Bytes of a password in UTF-8, at most: bcrypt reads no more.
pub const PASSWORD_MAX_BYTES: usize = 72;
/// Characters of an e-mail address, at most (RFC 5321, path length).
pub const EMAIL_CHARS: usize = 254;
/// Characters of a `displayName`.
pub const DISPLAY_NAME_CHARS: std::ops::RangeInclusive<usize> = 1..=64;
/// Characters of an `avatarUrl`.
pub const AVATAR_URL_CHARS: usize = 2048;
/// Characters of a room's `name`.
pub const ROOM_NAME_CHARS: std::ops::RangeInclusive<usize> = 1..=100;
/// Characters of a reaction's `emoji`.
pub const EMOJI_CHARS: std::ops::RangeInclusive<usize> = 1..=32;
/// Characters of a search.
pub const SEARCH_CHARS: std::ops::RangeInclusive<usize> = 1..=200;
/// Messages a page of history, and of search.
pub const PAGE: std::ops::RangeInclusive<i64> = 1..=100;
/// Messages a page when the caller names no limit.
pub const PAGE_DEFAULT: i64 = 50;
/// Users a page of the people search.
pub const USERS_PAGE_DEFAULT: i64 = 20;
/// Ids in one request for users or presence.
pub const USER_IDS: std::ops::RangeInclusive<usize> = 1..=200;
/// Members that one request adds to a room.
pub const MEMBER_IDS: usize = 1000;
/// Message ids in one `message:delivered`.
pub const DELIVERED_IDS: std::ops::RangeInclusive<usize> = 1..=100;
/// Rooms in one `room:sync`.
pub const SYNC_ROOMS: std::ops::RangeInclusive<usize> = 1..=50;
/// Messages for one room in the answer to `room:sync`.
pub const SYNC_MESSAGES: i64 = 100;
/// Messages in one `messages:offline`.
pub const OFFLINE_BATCH: usize = 50;
