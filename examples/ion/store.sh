#!/bin/sh
# The first module of a chain: stores an image and commits it together with what is to be known of it and with the event
# that starts the next module. Either all three are there or none is.
#
#   ION=http://127.0.0.1:8080 SHARED_SECRET=… ./store.sh picture.ppm
set -eu

name=images/$(basename "$1")
call() { curl -sf --retry 5 --retry-connrefused -H "secret: $SHARED_SECRET" "$@"; }

# Staged: nobody sees it yet. The answer is where it will be.
location=$(call -T "$1" "$ION/self/blob?res=$name&stage")
call "$ION/self/commit" -H 'Content-Type: application/json' -d "{
  \"blobs\": [\"$name\"],
  \"document\": {\"image\": \"$location\", \"shrink\": 2},
  \"events\": [{\"eventType\": \"image_stored\", \"image\": \"$location\"}]
}"
