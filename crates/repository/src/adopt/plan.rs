//! What a database lacks to be Starling's: a comparison of two schemas. No I/O.

use std::collections::BTreeSet;

use super::schema::{Column, Constraint, ConstraintKind, Index, Schema, Table};

/// The tables of such a Node.js backend without which there is nothing to adopt.
pub(super) const TABLES: [&str; 4] = ["users", "rooms", "room_members", "messages"];

/// Columns that must be there: nothing could stand in for them.
const REQUIRED: [(&str, &[&str]); 4] = [
    ("users", &["id", "username", "email", "password_hash", "created_at"]),
    ("rooms", &["id", "room_type", "created_by", "created_at"]),
    ("room_members", &["id", "room_id", "user_id"]),
    ("messages", &["id", "room_id", "sender_id", "content", "created_at"]),
];

/// What a row gets where a column that Starling needs is NULL. The triggers of
/// `db/compat` say the same of rows to come.
const FILLED: [(&str, &str, &str); 6] = [
    ("users", "display_name", "username"),
    ("room_members", "role", "'member'"),
    ("room_members", "joined_at", "(SELECT r.created_at FROM rooms r WHERE r.id = room_id)"),
    ("messages", "message_type", "'text'"),
    ("messages", "metadata", "'{}'"),
    ("user_sessions", "last_heartbeat", "connected_at"),
];

/// Columns that steps of their own fill.
const NUMBERED: [(&str, &[&str]); 3] = [
    ("rooms", &["last_seq", "last_activity_at"]),
    ("room_members", &["joined_seq", "last_delivered_seq", "last_read_seq"]),
    ("messages", &["seq"]),
];

/// The value that a row gets where this column is NULL.
pub(super) fn filling(table: &str, column: &str) -> Option<&'static str> {
    FILLED.iter().find(|(t, c, _)| *t == table && *c == column).map(|(_, _, value)| *value)
}

/// Whether a step of its own fills this column.
pub(super) fn numbered(table: &str, column: &str) -> bool {
    NUMBERED.iter().any(|(t, columns)| *t == table && columns.contains(&column))
}

/// Limits on what Node.js servers write that no row of Starling's needs to be
/// read: they wait for `--finish`, so that no INSERT of theirs fails before.
pub(super) fn waits_for_finish(constraint: &Constraint) -> bool {
    constraint.kind == ConstraintKind::Check
        && (constraint.name.ends_with("_length")
            || constraint.name == "rooms_direct_pair"
            || constraint.name == "rooms_name_of_groups")
}

/// What is to be done, in the order of the fields.
#[derive(Debug, Default)]
pub(super) struct Diff {
    /// Something that stands in the way, in words.
    pub problems: Vec<String>,
    /// Tables with a column of a type that comparisons may not understand.
    pub mistyped: BTreeSet<String>,
    /// Names that Starling needs: table, old name, new name, of a constraint.
    pub renames: Vec<(String, String, String, bool)>,
    /// `varchar(n)` to `text`: nothing is rewritten.
    pub widen: Vec<(String, String)>,
    /// NOT NULL where Starling writes NULL.
    pub relax: Vec<(String, String)>,
    pub defaults: Vec<(String, String, String)>,
    pub options: Vec<(String, String)>,
    pub tables: Vec<(String, Table)>,
    pub columns: Vec<(String, Column)>,
    pub not_null: Vec<(String, String)>,
    pub broken_indexes: Vec<String>,
    pub indexes: Vec<(String, Index)>,
    pub constraints: Vec<(String, Constraint)>,
    /// There, but rows of before were not looked at.
    pub unvalidated: Vec<(String, Constraint)>,
    /// Those that wait for `--finish`.
    pub later: Vec<(String, Constraint)>,
}

/// Compares what is there with what Starling's migrations make.
pub(super) fn diff(wanted: &Schema, actual: &Schema) -> Diff {
    let mut diff = Diff::default();
    for (name, table) in &wanted.tables {
        match actual.table(name) {
            Some(there) => diff.table(name, table, there),
            None => diff.tables.push((name.clone(), table.clone())),
        }
    }
    diff
}

impl Diff {
    fn table(&mut self, name: &str, wanted: &Table, actual: &Table) {
        if actual.partitioned {
            self.problems.push(format!(
                "{name} is partitioned: its indexes can't be built while servers write"
            ));
        }
        for column in &wanted.columns {
            self.column(name, column, actual);
        }
        for column in &actual.columns {
            let ours = wanted.column(&column.name).is_some();
            if !ours && column.not_null && column.default.is_none() && !column.identity {
                self.problems.push(format!(
                    "{name}.{0} is NOT NULL without a default, and Starling's inserts leave it \
                     out. Give it one: ALTER TABLE {name} ALTER COLUMN {0} SET DEFAULT …",
                    column.name
                ));
            }
        }
        let options: Vec<&str> = wanted
            .options
            .iter()
            .filter(|option| !actual.options.contains(option))
            .map(String::as_str)
            .collect();
        if !options.is_empty() {
            self.options.push((name.to_owned(), options.join(", ")));
        }
        for index in wanted.indexes.iter().filter(|index| !index.constraint) {
            self.index(name, index, actual);
        }
        for constraint in &wanted.constraints {
            self.constraint(name, constraint, wanted, actual);
        }
    }

    fn column(&mut self, table: &str, wanted: &Column, actual: &Table) {
        let name = &wanted.name;
        let Some(there) = actual.column(name) else {
            if REQUIRED.iter().any(|(t, columns)| *t == table && columns.contains(&name.as_str()))
                || wanted.identity
            {
                self.problems.push(format!(
                    "{table} has no column {name} ({}), and nothing else could tell it",
                    wanted.kind
                ));
                return;
            }
            self.columns.push((table.to_owned(), wanted.clone()));
            if wanted.not_null && (wanted.default.is_none() || numbered(table, name)) {
                self.not_null.push((table.to_owned(), name.clone()));
            }
            return;
        };
        if there.kind != wanted.kind {
            if wanted.kind == "text" && there.kind.starts_with("character varying") {
                self.widen.push((table.to_owned(), name.clone()));
            } else if !(name == "id" && wanted.kind == "bigint" && there.kind == "integer") {
                self.problems.push(mistyped(table, there, wanted));
                self.mistyped.insert(table.to_owned());
            }
        }
        if wanted.identity && !there.identity && there.default.is_none() {
            self.problems.push(format!(
                "{table}.{name} has no default: Starling's inserts leave the id to the database"
            ));
        }
        if there.not_null && !wanted.not_null {
            self.relax.push((table.to_owned(), name.clone()));
        }
        if wanted.not_null && !there.not_null {
            self.not_null.push((table.to_owned(), name.clone()));
        }
        if let Some(default) = wanted.default.as_ref().filter(|_| there.default.is_none()) {
            self.defaults.push((table.to_owned(), name.clone(), default.clone()));
        }
    }

    /// Makes a name free that something else has.
    fn rename_other(&mut self, table: &str, name: &str, actual: &Table) {
        let constraint = actual.constraints.iter().any(|constraint| constraint.name == name);
        if constraint || actual.index(name).is_some() {
            let aside = format!("{}_node", name.chars().take(58).collect::<String>());
            self.renames.push((table.to_owned(), name.to_owned(), aside, constraint));
        }
    }

    fn index(&mut self, table: &str, wanted: &Index, actual: &Table) {
        if let Some(same) = actual.index(&wanted.name) {
            if same.does_what(wanted) {
                if same.valid {
                    return;
                }
                // What an interrupted CREATE INDEX CONCURRENTLY leaves behind.
                self.broken_indexes.push(same.name.clone());
                self.indexes.push((table.to_owned(), wanted.clone()));
                return;
            }
            self.rename_other(table, &wanted.name, actual);
        }
        match actual.index_like(wanted) {
            Some(other) if !other.constraint => self.renames.push((
                table.to_owned(),
                other.name.clone(),
                wanted.name.clone(),
                false,
            )),
            _ => self.indexes.push((table.to_owned(), wanted.clone())),
        }
    }

    fn constraint(&mut self, table: &str, wanted: &Constraint, all: &Table, actual: &Table) {
        let place = table.to_owned();
        if let Some(there) = actual.constraint_like(wanted) {
            if !there.valid {
                self.unvalidated.push((place.clone(), there.clone()));
            }
            if there.name != wanted.name && wanted.kind != ConstraintKind::ForeignKey {
                let (from, to) = (there.name.clone(), wanted.name.clone());
                self.rename_other(table, &to, actual);
                self.renames.push((place, from, to, true));
            }
            return;
        }
        if waits_for_finish(wanted) {
            self.later.push((place, wanted.clone()));
            return;
        }
        if matches!(wanted.kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique) {
            // Its index first, which is built while servers write.
            if let Some(index) = all.index(&wanted.name) {
                let index = Index { constraint: false, ..index.clone() };
                self.index(table, &index, actual);
            }
        } else if actual.constraints.iter().any(|other| other.name == wanted.name) {
            self.rename_other(table, &wanted.name, actual);
        }
        self.constraints.push((place, wanted.clone()));
    }
}

fn mistyped(table: &str, there: &Column, wanted: &Column) -> String {
    let (name, is, must) = (&there.name, &there.kind, &wanted.kind);
    let mut text = format!("{table}.{name} is {is} and must be {must}");
    if is == "timestamp without time zone" {
        text.push_str(&format!(
            ". Only you know in which zone it was written; in a quiet minute, since it locks \
             the table: ALTER TABLE {table} ALTER COLUMN {name} TYPE timestamptz USING {name} \
             AT TIME ZONE 'UTC'"
        ));
    }
    text
}

/// `name type [NOT NULL] …` of a column; `lax` leaves out a NOT NULL that the rows
/// of before could not keep.
pub(super) fn column_sql(column: &Column, lax: bool) -> String {
    let mut sql = format!("{} {}", quote(&column.name), column.kind);
    if column.identity {
        sql.push_str(" GENERATED BY DEFAULT AS IDENTITY");
    }
    if let Some(default) = &column.default {
        sql.push_str(&format!(" DEFAULT {default}"));
    }
    if column.not_null && !(lax && column.default.is_none()) {
        sql.push_str(" NOT NULL");
    }
    sql
}

/// A whole new table with its constraints and indexes.
pub(super) fn table_sql(name: &str, table: &Table) -> String {
    let mut parts: Vec<String> =
        table.columns.iter().map(|column| column_sql(column, false)).collect();
    for constraint in &table.constraints {
        parts.push(format!("CONSTRAINT {} {}", quote(&constraint.name), constraint.definition));
    }
    let mut sql = format!("CREATE TABLE {} ({})", quote(name), parts.join(", "));
    if !table.options.is_empty() {
        sql.push_str(&format!(" WITH ({})", table.options.join(", ")));
    }
    for index in table.indexes.iter().filter(|index| !index.constraint) {
        sql.push_str("; ");
        sql.push_str(&index_sql(name, index, false));
    }
    sql
}

pub(super) fn index_sql(table: &str, index: &Index, concurrently: bool) -> String {
    format!(
        "CREATE {}INDEX {}{} ON {} USING {}",
        if index.unique { "UNIQUE " } else { "" },
        if concurrently { "CONCURRENTLY " } else { "" },
        quote(&index.name),
        quote(table),
        index.definition
    )
}

/// A name as PostgreSQL reads it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
