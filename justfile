# Daily recipes; each calls what the scripts call.

# List the recipes.
default:
    @just --list

# Run the chat on this machine with demo users.
server *args:
    script/server {{ args }}

# The web app, reloaded as you type; calls go to a server on port 3000.
web:
    npm --prefix frontend run dev

# Make the picture of the README again.
screenshot:
    script/screenshot

# Every check and test, or some: lint, rust, frontend, web, interop, e2e, cluster.
test *parts:
    script/test {{ parts }}

# Formatters and linters.
lint:
    script/test lint

# Format the Rust code.
fmt:
    cargo fmt

# Refresh .sqlx after a query or a migration changed.
sqlx-prepare:
    script/sqlx-prepare

# Refresh the TypeScript types after the protocol changed.
types:
    UPDATE_TYPES=1 cargo test --package starling-protocol --test typescript

# What a delivery costs beside the plain engine and a bare send() loop.
bench *args:
    cargo bench --package socketioxide-wire --bench delivery -- {{ args }}
