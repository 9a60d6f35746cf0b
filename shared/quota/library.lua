-- First in the library of all scripts: what the server provides to functions, kept at hand.
--
-- A function finds a global behind two tables, so the library has locals of the same names, which every function shares.
-- While a library is loaded none of this is there yet: the first call takes it. `SUFFIX` stands in front of this.

local register_function = redis.register_function

local function provided()
  return redis, struct, string, math, tonumber, unpack
end

local redis, struct, string, math, tonumber, unpack

-- Makes a function callable by its name: with the keys and the arguments of the call.
local function register(name, run, flags)
  local function called(keys, arguments)
    if not redis then
      redis, struct, string, math, tonumber, unpack = provided()
    end
    return run(keys, arguments)
  end
  register_function({ function_name = name .. SUFFIX, callback = called, flags = flags or {} })
end
