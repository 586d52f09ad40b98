//! What columns of before lack: values where Starling allows no NULL, and the
//! pairs of direct rooms.

use sqlx::{AssertSqlSafe, PgConnection};

use super::ddl::{is_busy, persist, persist_over};
use super::plan::quote;
use super::{AdoptError, Say};

/// Rows a transaction.
const BATCH: i64 = 500;

/// Gives every row in which the column is NULL this value.
pub(super) async fn column(
    db: &mut PgConnection,
    table: &str,
    name: &str,
    value: &str,
    say: Say<'_>,
) -> Result<(), AdoptError> {
    // Table and column come from a list of ours that no macro can take as an argument.
    let sql = format!(
        "WITH page AS (
           SELECT id FROM {table} WHERE id > $1 ORDER BY id LIMIT $2
         ),
         done AS (
           UPDATE {table} SET {column} = {value}
           WHERE id IN (SELECT id FROM page)
             AND {column} IS NULL
           RETURNING id
         )
         SELECT (SELECT max(id)::bigint FROM page), (SELECT count(*) FROM done)",
        table = quote(table),
        column = quote(name),
    );
    let (mut after, mut filled) = (i64::MIN, 0);
    let what = format!("filling {table}.{name}");
    loop {
        let (last, count): (Option<i64>, i64) = persist(db, &what, async |tx| {
            sqlx::query_as(AssertSqlSafe(sql.clone())).bind(after).bind(BATCH).fetch_one(tx).await
        })
        .await?;
        filled += count;
        let Some(last) = last else { break };
        after = last;
    }
    if filled > 0 {
        say(&format!("  {table}.{name}: {filled} rows that had none now have {value}"));
    }
    Ok(())
}

/// Notes the two users of each direct room. Of several rooms of the same two, the
/// one of the newest activity is theirs; those of other than two stay without.
pub(super) async fn direct_pairs(db: &mut PgConnection) -> Result<u64, AdoptError> {
    let pairs = sqlx::query!(
        r#"SELECT DISTINCT ON (p.low, p.high)
             p.id AS "id!", p.low AS "low!", p.high AS "high!"
           FROM (
             SELECT
               r.id, r.last_activity_at,
               min(rm.user_id) AS low,
               max(rm.user_id) AS high
             FROM rooms r
             JOIN room_members rm ON rm.room_id = r.id
             WHERE r.room_type = 'direct'
               AND r.direct_low IS NULL
             GROUP BY r.id
             HAVING count(DISTINCT rm.user_id) = 2
           ) AS p
           ORDER BY p.low, p.high, p.last_activity_at DESC, p.id"#,
    )
    .fetch_all(&mut *db)
    .await?;
    let mut done = 0;
    for some in pairs.chunks(BATCH as usize) {
        let mut some: Vec<(i32, i32, i32)> =
            some.iter().map(|row| (row.id, row.low, row.high)).collect();
        some.sort_unstable();
        let ids: Vec<i32> = some.iter().map(|pair| pair.0).collect();
        let low: Vec<i32> = some.iter().map(|pair| pair.1).collect();
        let high: Vec<i32> = some.iter().map(|pair| pair.2).collect();
        // Also when the trigger paired two of them at the same moment.
        let passes = |error: &sqlx::Error| {
            is_busy(error) || crate::error::violates(error, "rooms_direct_key")
        };
        let paired = persist_over(db, "pairing direct rooms", passes, async |tx| {
            sqlx::query!(
                "UPDATE rooms r
                 SET direct_low = p.low,
                     direct_high = p.high
                 FROM unnest($1::int[], $2::int[], $3::int[]) AS p (id, low, high)
                 WHERE r.id = p.id
                   AND r.direct_low IS NULL
                   AND NOT EXISTS (
                     SELECT FROM rooms o WHERE o.direct_low = p.low AND o.direct_high = p.high
                   )",
                &ids,
                &low,
                &high,
            )
            .execute(tx)
            .await
        })
        .await?;
        done += paired.rows_affected();
    }
    Ok(done)
}
