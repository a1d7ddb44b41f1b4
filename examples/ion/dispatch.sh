#!/bin/sh
# A dispatcher of one chain: follows its events and starts the next module when an image is stored, until one is resized.
#
#   ION=http://127.0.0.1:8080 WATCH_SECRET=… NEXT_SECRET=… ./dispatch.sh
set -eu

cd "$(dirname "$0")"
events=$(mktemp -u)
mkfifo "$events"
curl -sN -H "secret: $WATCH_SECRET" "$ION/events?follow" >"$events" &
follower=$!
trap 'kill $follower 2>/dev/null; rm -f "$events"' EXIT
while read -r event; do
    echo "$event"
    case $event in
        *'"type":"image_stored"'*) SHARED_SECRET=$NEXT_SECRET "${PYTHON:-python3}" resize.py ;;
        *'"type":"image_resize_complete"'*) exit 0 ;;
    esac
done <"$events"
