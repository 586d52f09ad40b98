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

# Every check and test, or some: lint, rust, frontend, web, interop, e2e, cluster, chaos, deploy.
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

# Three instances under faults for ten minutes, and what they promise checked: see loadtest/chaos.
chaos *args:
    node loadtest/chaos/run.mjs {{ args }}

# Thousands of clients that are cut at once: see loadtest/herd.
herd *args:
    script/herd {{ args }}

# What group commit brings beside a transaction for each message and each mark.
bench-write *args:
    script/bench starling-chat write {{ args }}

# What a connect costs, beside a query for each thing and a row for each socket.
bench-connect *args:
    script/bench starling-repository connect {{ args }}

# What a send costs that needs no round trip to Redis, beside one that does.
bench-limits *args:
    cargo bench --package starling-redis --bench limits -- {{ args }}

# A cluster on this machine: PostgreSQL, Redis, N instances, NGINX.
cluster *args:
    script/cluster {{ args }}

# People on a cluster whose parts are restarted and killed: short or long.
cluster-smoke *args:
    script/cluster-smoke {{ args }}

# Refresh the table of metrics (deploy/METRICS.md) from the code.
metrics:
    UPDATE_METRICS=1 cargo test --package starling --lib telemetry

# Refresh the Grafana dashboards after deploy/dashboards/build.mjs changed.
dashboards:
    node deploy/dashboards/build.mjs
