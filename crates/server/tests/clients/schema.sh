#!/usr/bin/env bash
# Fuzzes every operation of the server's OpenAPI document with schemathesis, and checks that answers are as it
# says:
#
#     pip install schemathesis==4.32.5
#     alitok serve &
#     crates/server/tests/clients/schema.sh http://127.0.0.1:8080 [EXAMPLES]
#
# `positive_data_acceptance` is left out: a prompt that fits the schema need not be a class of the model.
# `unsupported_method` is: TRACE and CONNECT are refused by the HTTP library itself.
set -euo pipefail
# It leaves a cache where it runs.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${SCHEMATHESIS:-schemathesis}" run "$1/openapi.json" --url "$1" --max-examples "${2:-40}" \
    --exclude-checks positive_data_acceptance,unsupported_method --request-timeout 60 --seed 1 \
    --continue-on-failure --no-color
