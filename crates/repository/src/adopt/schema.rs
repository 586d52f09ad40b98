//! What a schema holds, read from PostgreSQL's catalogs.
//!
//! The schema that Starling wants is not written down a second time here: its
//! migrations are run in a schema of their own, in a transaction that is rolled
//! back, and read from the catalogs in the same way. So a later migration is
//! part of an adoption without a change to this module.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::AdoptError;
use crate::pool::MIGRATIONS;

/// The tables of a schema by name.
#[derive(Debug, Default, Clone)]
pub(super) struct Schema {
    pub tables: BTreeMap<String, Table>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Table {
    /// In their order.
    pub columns: Vec<Column>,
    pub constraints: Vec<Constraint>,
    pub indexes: Vec<Index>,
    /// Storage parameters, such as `fillfactor=80`.
    pub options: Vec<String>,
    pub partitioned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// As PostgreSQL prints it: `character varying(50)`.
    pub kind: String,
    pub not_null: bool,
    pub default: Option<String>,
    pub identity: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConstraintKind {
    PrimaryKey,
    Unique,
    ForeignKey,
    Check,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Constraint {
    pub name: String,
    pub kind: ConstraintKind,
    /// `CHECK (…)`, `FOREIGN KEY …`, without `NOT VALID`.
    pub definition: String,
    pub valid: bool,
    pub columns: Vec<String>,
    /// The table that a foreign key refers to.
    pub target: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub name: String,
    /// From the method on: `btree (room_id, created_at DESC)`.
    pub definition: String,
    pub unique: bool,
    pub valid: bool,
    /// Behind a primary key or a unique constraint.
    pub constraint: bool,
    /// What it orders by, each as an expression.
    pub keys: Vec<String>,
    pub predicate: Option<String>,
    /// The table's columns that it needs.
    pub columns: Vec<String>,
}

impl Schema {
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub fn has(&self, columns: &[String]) -> bool {
        columns.iter().all(|name| self.column(name).is_some())
    }

    pub fn index(&self, name: &str) -> Option<&Index> {
        self.indexes.iter().find(|index| index.name == name)
    }

    /// A usable index that does the same.
    pub fn index_like(&self, wanted: &Index) -> Option<&Index> {
        self.indexes.iter().find(|index| index.valid && index.does_what(wanted))
    }

    /// A constraint that says the same, whatever its name.
    pub fn constraint_like(&self, wanted: &Constraint) -> Option<&Constraint> {
        self.constraints.iter().find(|constraint| constraint.says_what(wanted))
    }
}

impl Index {
    pub fn does_what(&self, other: &Self) -> bool {
        self.unique == other.unique && self.definition == other.definition
    }
}

impl Constraint {
    /// Foreign keys may differ in what they do on a delete: Starling deletes
    /// nothing that others refer to.
    pub fn says_what(&self, other: &Self) -> bool {
        if self.kind != other.kind {
            return false;
        }
        match self.kind {
            ConstraintKind::ForeignKey => {
                self.columns == other.columns && self.target == other.target
            }
            _ => self.definition == other.definition,
        }
    }

    /// The condition of a CHECK.
    pub fn condition(&self) -> &str {
        self.definition.strip_prefix("CHECK ").unwrap_or(&self.definition)
    }
}

/// Reads a schema that is the only one in the session's `search_path`, so that
/// definitions name its tables without it.
pub(super) async fn read(db: &mut PgConnection, schema: &str) -> Result<Schema, sqlx::Error> {
    let mut found = Schema::default();
    let tables = sqlx::query!(
        r#"SELECT
             c.relname::text AS "name!",
             c.relkind = 'p' AS "partitioned!",
             coalesce(c.reloptions, '{}') AS "options!"
           FROM pg_class c
           JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = $1
             AND c.relkind IN ('r', 'p')"#,
        schema,
    )
    .fetch_all(&mut *db)
    .await?;
    for row in tables {
        let table =
            Table { options: row.options, partitioned: row.partitioned, ..Table::default() };
        found.tables.insert(row.name, table);
    }
    let columns = sqlx::query!(
        r#"SELECT
             c.relname::text AS "table!",
             a.attname::text AS "name!",
             format_type(a.atttypid, a.atttypmod) AS "kind!",
             a.attnotnull AS "not_null!",
             pg_get_expr(d.adbin, d.adrelid) AS "default?",
             a.attidentity <> '' AS "identity!"
           FROM pg_class c
           JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
           WHERE n.nspname = $1
             AND c.relkind IN ('r', 'p')
           ORDER BY c.relname, a.attnum"#,
        schema,
    )
    .fetch_all(&mut *db)
    .await?;
    for row in columns {
        if let Some(table) = found.tables.get_mut(&row.table) {
            table.columns.push(Column {
                name: row.name,
                kind: row.kind,
                not_null: row.not_null,
                default: row.default,
                identity: row.identity,
            });
        }
    }
    read_constraints(db, schema, &mut found).await?;
    read_indexes(db, schema, &mut found).await?;
    Ok(found)
}

/// PostgreSQL breaks the lines of a CASE.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

async fn read_constraints(
    db: &mut PgConnection,
    schema: &str,
    found: &mut Schema,
) -> Result<(), sqlx::Error> {
    let constraints = sqlx::query!(
        r#"SELECT
             c.relname::text AS "table!",
             k.conname::text AS "name!",
             k.contype::text AS "kind!",
             pg_get_constraintdef(k.oid, true) AS "definition!",
             k.convalidated AS "valid!",
             ARRAY(
               SELECT a.attname::text
               FROM unnest(k.conkey) WITH ORDINALITY AS u (attnum, place)
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum
               ORDER BY u.place
             ) AS "columns!",
             t.relname::text AS "target?"
           FROM pg_constraint k
           JOIN pg_class c ON c.oid = k.conrelid
           JOIN pg_namespace n ON n.oid = c.relnamespace
           LEFT JOIN pg_class t ON t.oid = k.confrelid
           WHERE n.nspname = $1
             AND k.contype IN ('p', 'u', 'f', 'c')
           ORDER BY c.relname, k.conname"#,
        schema,
    )
    .fetch_all(db)
    .await?;
    for row in constraints {
        let Some(table) = found.tables.get_mut(&row.table) else { continue };
        table.constraints.push(Constraint {
            name: row.name,
            kind: match row.kind.as_str() {
                "p" => ConstraintKind::PrimaryKey,
                "u" => ConstraintKind::Unique,
                "f" => ConstraintKind::ForeignKey,
                _ => ConstraintKind::Check,
            },
            definition: one_line(row.definition.trim_end_matches(" NOT VALID")),
            valid: row.valid,
            columns: row.columns,
            target: row.target,
        });
    }
    Ok(())
}

async fn read_indexes(
    db: &mut PgConnection,
    schema: &str,
    found: &mut Schema,
) -> Result<(), sqlx::Error> {
    let indexes = sqlx::query!(
        r#"SELECT
             t.relname::text AS "table!",
             i.relname::text AS "name!",
             pg_get_indexdef(x.indexrelid, 0, true) AS "definition!",
             x.indisunique AS "unique!",
             x.indisvalid AS "valid!",
             EXISTS (
               SELECT FROM pg_constraint k
               WHERE k.conindid = x.indexrelid AND k.contype IN ('p', 'u')
             ) AS "constraint!",
             ARRAY(
               SELECT pg_get_indexdef(x.indexrelid, k, true)
               FROM generate_series(1, x.indnkeyatts) AS k
             ) AS "keys!",
             pg_get_expr(x.indpred, x.indrelid, true) AS "predicate?",
             ARRAY(
               SELECT a.attname::text
               FROM pg_attribute a
               WHERE a.attrelid = x.indrelid
                 AND a.attnum > 0
                 AND (
                   a.attnum = ANY(x.indkey::int2[])
                   OR EXISTS (
                     SELECT FROM pg_depend d
                     WHERE d.classid = 'pg_class'::regclass
                       AND d.objid = x.indexrelid
                       AND d.refclassid = 'pg_class'::regclass
                       AND d.refobjid = x.indrelid
                       AND d.refobjsubid = a.attnum
                   )
                 )
             ) AS "columns!"
           FROM pg_index x
           JOIN pg_class i ON i.oid = x.indexrelid
           JOIN pg_class t ON t.oid = x.indrelid
           JOIN pg_namespace n ON n.oid = t.relnamespace
           WHERE n.nspname = $1
             AND t.relkind IN ('r', 'p')
           ORDER BY t.relname, i.relname"#,
        schema,
    )
    .fetch_all(db)
    .await?;
    for row in indexes {
        let Some(table) = found.tables.get_mut(&row.table) else { continue };
        let definition = row.definition.split_once(" USING ").map_or("", |(_, rest)| rest);
        table.indexes.push(Index {
            name: row.name,
            definition: definition.to_owned(),
            unique: row.unique,
            valid: row.valid,
            constraint: row.constraint,
            keys: row.keys,
            predicate: row.predicate,
            columns: row.columns,
        });
    }
    Ok(())
}

/// Starling's own schema, as its migrations make it. Leaves nothing behind.
pub(super) async fn reference(db: &mut PgConnection) -> Result<Schema, AdoptError> {
    const NAME: &str = "starling_reference";
    let mut tx = db.begin().await?;
    // Text of the migrations, which is ours, so none of these is a query of fixed shape.
    let created = sqlx::raw_sql("CREATE SCHEMA starling_reference").execute(&mut *tx).await;
    if let Err(error) = created {
        let code = error.as_database_error().and_then(|e| e.code());
        if code.as_deref() == Some("42501") {
            return Err(AdoptError::Refused(
                "this database user may not create a schema here, nor therefore add tables: \
                 use the owner of the database"
                    .to_owned(),
            ));
        }
        return Err(error.into());
    }
    sqlx::raw_sql("SET LOCAL search_path = starling_reference").execute(&mut *tx).await?;
    for migration in MIGRATIONS.iter() {
        // On empty tables, and in a transaction, an index is made the plain way.
        let sql = migration.sql.as_str().replace(" CONCURRENTLY", "");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await?;
    }
    let mut schema = read(&mut tx, NAME).await?;
    schema.tables.remove("_sqlx_migrations");
    tx.rollback().await?;
    Ok(schema)
}
