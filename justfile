# Daily recipes; each calls what the scripts call.

# List the recipes.
default:
    @just --list

# Run the chat on this machine with demo users.
server *args:
    script/server {{ args }}

# Every check and test, or some: lint, rust, e2e, frontend, deploy.
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

# A cluster on this machine: PostgreSQL, Redis, N instances, NGINX.
cluster *args:
    script/cluster {{ args }}

# People on a cluster whose parts are restarted and killed: short or long.
cluster-smoke *args:
    script/cluster-smoke {{ args }}

# Refresh the Grafana dashboards after deploy/dashboards/build.mjs changed.
dashboards:
    node deploy/dashboards/build.mjs
