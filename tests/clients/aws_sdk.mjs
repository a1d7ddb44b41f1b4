// One step with the JavaScript SDK. Bodies are streams, so that they travel in chunks with a trailer.
import { createReadStream, createWriteStream, statSync } from "node:fs";
import { pipeline } from "node:stream/promises";
import * as s3 from "@aws-sdk/client-s3";

const [endpoint, Bucket, step, ...rest] = process.argv.slice(2);
const client = new s3.S3Client({ endpoint, region: "us-east-1", forcePathStyle: true });

const steps = {
  make: () => client.send(new s3.CreateBucketCommand({ Bucket })),
  put: (path, Key) =>
    client.send(
      new s3.PutObjectCommand({ Bucket, Key, Body: createReadStream(path), ContentLength: statSync(path).size }),
    ),
  get: async (Key, path) => {
    const got = await client.send(new s3.GetObjectCommand({ Bucket, Key }));
    await pipeline(got.Body, createWriteStream(path));
  },
  list: async () => {
    const listed = await client.send(new s3.ListObjectsV2Command({ Bucket }));
    for (const { Key } of listed.Contents ?? []) console.log(Key);
  },
  delete: (Key) => client.send(new s3.DeleteObjectCommand({ Bucket, Key })),
  unmake: () => client.send(new s3.DeleteBucketCommand({ Bucket })),
};
await steps[step](...rest);
