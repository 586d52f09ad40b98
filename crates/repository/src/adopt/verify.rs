//! Looks whether all is as it must be, with servers writing on.

use sqlx::PgConnection;

use super::AdoptError;

/// Rooms a statement: each sees its rooms and their messages at one moment.
const ROOMS: i64 = 200;

/// What was looked at.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Verified {
    pub rooms: i64,
    pub messages: i64,
    pub memberships: i64,
}

/// Every room's messages are 1..N, `last_seq` is N, every watermark lies between.
pub(super) async fn run(db: &mut PgConnection) -> Result<Verified, AdoptError> {
    let mut verified = Verified::default();
    let mut wrong: Vec<String> = Vec::new();
    let mut after = i32::MIN;
    loop {
        let rooms = sqlx::query!(
            r#"SELECT
                 r.id,
                 r.last_seq AS "last_seq?",
                 h.messages AS "messages!",
                 h.lowest AS "lowest?",
                 h.highest AS "highest?",
                 h.numbered AS "numbered!"
               FROM (SELECT * FROM rooms WHERE id > $1 ORDER BY id LIMIT $2) AS r
               CROSS JOIN LATERAL (
                 SELECT
                   count(*) AS messages, count(m.seq) AS numbered,
                   min(m.seq) AS lowest, max(m.seq) AS highest
                 FROM messages m
                 WHERE m.room_id = r.id
               ) AS h
               ORDER BY r.id"#,
            after,
            ROOMS,
        )
        .fetch_all(&mut *db)
        .await?;
        let Some(last) = rooms.last() else { break };
        after = last.id;
        for room in rooms {
            verified.rooms += 1;
            verified.messages += room.messages;
            // seq is unique in a room: so these make it 1..N.
            let whole = room.numbered == room.messages
                && room.last_seq == Some(room.messages)
                && room.highest.unwrap_or(0) == room.messages
                && (room.messages == 0 || room.lowest == Some(1));
            if !whole {
                wrong.push(format!(
                    "room {} has {} messages, {} of them numbered, up to {}, and last_seq {}",
                    room.id,
                    room.messages,
                    room.numbered,
                    room.highest.unwrap_or(0),
                    room.last_seq.map_or("not set".to_owned(), |seq| seq.to_string()),
                ));
            }
        }
    }
    let stays = sqlx::query!(
        r#"SELECT
             count(*) AS "all!",
             count(*) FILTER (
               WHERE rm.joined_seq >= 0
                 AND rm.joined_seq <= r.last_seq
                 AND rm.last_read_seq BETWEEN rm.joined_seq AND r.last_seq
                 AND rm.last_delivered_seq BETWEEN rm.joined_seq AND r.last_seq
             ) AS "right!"
           FROM room_members rm
           JOIN rooms r ON r.id = rm.room_id"#,
    )
    .fetch_one(&mut *db)
    .await?;
    verified.memberships = stays.all;
    if stays.right != stays.all {
        wrong.push(format!(
            "{} memberships have watermarks outside their room's messages",
            stays.all - stays.right
        ));
    }
    if wrong.is_empty() {
        return Ok(verified);
    }
    let more = wrong.len().saturating_sub(5);
    wrong.truncate(5);
    if more > 0 {
        wrong.push(format!("and {more} more"));
    }
    Err(AdoptError::Refused(format!(
        "the result is not what it must be: {}. A server that DELETEs rows of messages makes \
         such gaps: db/README.md says what to do",
        wrong.join("; ")
    )))
}
