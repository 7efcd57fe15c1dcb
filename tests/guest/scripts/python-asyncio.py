import asyncio
import concurrent.futures
import multiprocessing


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line.upper())
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    writer.write(b"hello\nworld\n")
    writer.write_eof()
    print(await reader.read())
    server.close()
    process = await asyncio.create_subprocess_exec("/bin/echo", "sub", stdout=asyncio.subprocess.PIPE)
    print(await process.communicate(), process.returncode)
    print(await asyncio.gather(*(asyncio.sleep(0.001 * (5 - i), i) for i in range(5))))
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.01)
    except TimeoutError:
        print("timeout")


def square(x: int) -> int:
    return x * x


asyncio.run(main())
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(list(pool.map(square, range(10))))
fork = multiprocessing.get_context("fork")
here, there = fork.Pipe()
process = fork.Process(target=lambda: there.send([1, 2, 3]))
process.start()
print(here.recv())
process.join()
print(process.exitcode)
