// Loads the packages named by its arguments, in a sandbox, before the set is used.
const failed = [];
for (const name of process.argv.slice(2)) {
  try {
    await import(name);
  } catch (error) {
    failed.push(`${name}: ${error.message}`);
  }
}
if (failed.length) {
  console.error(failed.join('; '));
  process.exit(1);
}
