//! `frontend/src/protocol.ts` is made from the Rust types, and is fresh.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use starling_protocol::{error::*, event::*, http::*, *};
use ts_rs::{Config, TS};

fn generate() -> String {
    let config = Config::default();
    let mut text = String::from(
        "// Made from crates/protocol: change the Rust types, then run `just types`.\n",
    );
    macro_rules! types {
        ($($name:ty),* $(,)?) => {
            $( text.push_str(&format!("\nexport {}\n", <$name as TS>::decl(&config))); )*
        };
    }
    types!(
        Timestamp,
        UserId,
        RoomId,
        MessageId,
        ClientId,
        SessionId,
        User,
        RoomType,
        Role,
        Room,
        Member,
        MessageType,
        Message,
        Reaction,
        Receipts,
        PresenceStatus,
        Presence,
        Code,
        Failure,
        ErrorBody,
        MessageSend,
        MessageDelivered,
        MessageRead,
        MessageEdit,
        MessageDelete,
        ReactionChange,
        RoomRef,
        PresenceSet,
        PresenceQuery,
        RoomSync,
        SyncFrom,
        SyncedRoom,
        SessionReady,
        ReadyRoom,
        ReceiptStatus,
        MessageStatus,
        MessagesOffline,
        RoomRead,
        TypingUpdate,
        SessionRevoked,
        SyncRequired,
        RoomHead,
        ServerDraining,
        EventError,
        Register,
        Login,
        Refresh,
        Authenticated,
        UserPatch,
        RoomCreate,
        RoomPatch,
        MembersAdd,
        MemberPatch,
        UserBody,
        UsersBody,
        RoomBody,
        RoomsBody,
        HistoryPage,
        SearchPage,
    );
    text
}

#[test]
fn the_typescript_types_are_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../frontend/src/protocol.ts");
    let fresh = generate();
    if std::env::var_os("UPDATE_TYPES").is_some() {
        std::fs::write(path, &fresh).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(stored == fresh, "frontend/src/protocol.ts is stale: run `just types`");
}
