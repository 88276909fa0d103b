// Writes to a table in every way that there is, and prints the records of its stream as JSON.
import {
  BatchWriteItemCommand, CreateTableCommand, DeleteItemCommand, DynamoDBClient, ExecuteStatementCommand,
  PutItemCommand, TransactWriteItemsCommand, UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { DescribeStreamCommand, DynamoDBStreamsClient, GetRecordsCommand, GetShardIteratorCommand }
  from "@aws-sdk/client-dynamodb-streams";

const settings = {
  endpoint: process.argv[2], region: "us-east-1", credentials: { accessKeyId: "any", secretAccessKey: "thing" },
};
const database = new DynamoDBClient(settings);
const streams = new DynamoDBStreamsClient(settings);
const TableName = "javascript";

const created = await database.send(new CreateTableCommand({
  TableName,
  KeySchema: [{ AttributeName: "id", KeyType: "HASH" }],
  AttributeDefinitions: [{ AttributeName: "id", AttributeType: "S" }],
  BillingMode: "PAY_PER_REQUEST",
  StreamSpecification: { StreamEnabled: true, StreamViewType: "NEW_AND_OLD_IMAGES" },
}));
const item = (id, more = {}) => ({ id: { S: id }, ...more });
await database.send(new PutItemCommand({ TableName, Item: item("a", { b: { B: new Uint8Array([0, 255]) } }) }));
await database.send(new UpdateItemCommand({
  TableName, Key: item("a"), UpdateExpression: "SET n = :n", ExpressionAttributeValues: { ":n": { N: "1" } },
}));
await database.send(new BatchWriteItemCommand({ RequestItems: { [TableName]: [{ PutRequest: { Item: item("b") } }] } }));
await database.send(new TransactWriteItemsCommand({ TransactItems: [{ Put: { TableName, Item: item("c") } }] }));
await database.send(new ExecuteStatementCommand({ Statement: `INSERT INTO ${TableName} VALUE {'id': 'd'}` }));
await database.send(new DeleteItemCommand({ TableName, Key: item("a") }));

const StreamArn = created.TableDescription.LatestStreamArn;
const { StreamDescription } = await streams.send(new DescribeStreamCommand({ StreamArn }));
const { ShardId } = StreamDescription.Shards[0];
const { ShardIterator } = await streams.send(
  new GetShardIteratorCommand({ StreamArn, ShardId, ShardIteratorType: "TRIM_HORIZON" }));
const { Records } = await streams.send(new GetRecordsCommand({ ShardIterator }));
for (const record of Records) {
  const { Keys, OldImage } = record.dynamodb;
  console.log(JSON.stringify([record.eventName, Keys.id.S, OldImage?.b ? [...OldImage.b.B] : null]));
}
