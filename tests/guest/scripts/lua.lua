local t = {}
for i = 1, 1000 do t[i] = (i * 7919) % 1000 end
table.sort(t)
print(#t, t[1], t[1000])
local co = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end)
print(co(), co(), co())
print(("hello world"):gsub("o", "0"), string.format("%5.2f %q %x", 1/3, "a\nb", 255), #("x"):rep(100000))
local function fib(n) return n < 2 and n or fib(n-1) + fib(n-2) end
print(fib(16))
local mt = setmetatable({}, {__index = function(_, k) return k .. "!" end})
print(mt.key)
for i = 1, 20000 do local s = {i, tostring(i)} end
collectgarbage()
print(collectgarbage("count") < 10000)
print(pcall(error, {code = 1}) == false, select("#", 1, nil, 3), 7 // 2, -7 % 3, 2^53, 1 << 40, 10 / 2)
local f = io.open("lua.txt", "w")
f:write("one\ntwo\n")
f:close()
for l in io.lines("lua.txt") do print(l) end
os.remove("lua.txt")
print(io.popen("echo popen"):read("a"))
print(os.execute("exit 4"))
print(os.getenv("HOME"), os.time{year=2004, month=5, day=22, hour=12})
error("the end")
