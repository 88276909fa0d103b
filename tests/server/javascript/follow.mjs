// Follows a stream to its end with the AWS SDK, parents before children, and prints each record's id as it comes.
// A call that fails because nobody answers is tried again; any other error ends it.
import { DescribeStreamCommand, DynamoDBStreamsClient, GetRecordsCommand, GetShardIteratorCommand }
  from "@aws-sdk/client-dynamodb-streams";

const [endpoint, streamArn] = process.argv.slice(2);
const client = new DynamoDBStreamsClient({
  endpoint, region: "us-east-1", credentials: { accessKeyId: "any", secretAccessKey: "thing" },
});

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function call(command) {
  for (;;) {
    try {
      return await client.send(command);
    } catch (error) {
      if (!["ECONNREFUSED", "ECONNRESET", "EPIPE"].includes(error.code) && error.name !== "TimeoutError") throw error;
      await pause(50);
    }
  }
}

async function shards() {
  const found = [];
  let start;
  do {
    const answer = await call(new DescribeStreamCommand({ StreamArn: streamArn, ExclusiveStartShardId: start, Limit: 2 }));
    found.push(...answer.StreamDescription.Shards);
    start = answer.StreamDescription.LastEvaluatedShardId;
  } while (start);
  return found;
}

const iterators = new Map();
const finished = new Set();
for (;;) {
  const known = await shards();
  for (const { ShardId, ParentShardId } of known) {
    const parentIsThere = known.some((shard) => shard.ShardId === ParentShardId);
    if (finished.has(ShardId) || iterators.has(ShardId) || (parentIsThere && !finished.has(ParentShardId))) continue;
    const asked = { StreamArn: streamArn, ShardId, ShardIteratorType: "TRIM_HORIZON" };
    iterators.set(ShardId, (await call(new GetShardIteratorCommand(asked))).ShardIterator);
  }
  if (iterators.size === 0) break;
  let records = 0;
  for (const [shardId, iterator] of [...iterators]) {
    const page = await call(new GetRecordsCommand({ ShardIterator: iterator, Limit: 10 }));
    for (const record of page.Records) console.log(record.dynamodb.Keys.id.S);
    records += page.Records.length;
    if (page.NextShardIterator) {
      iterators.set(shardId, page.NextShardIterator);
    } else {
      iterators.delete(shardId);
      finished.add(shardId);
    }
  }
  if (records === 0) await pause(50);
}
